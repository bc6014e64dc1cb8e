"""AlphaGrad under other people's training loops: Lightning, Fabric, accelerate, timm, pytorch-optimizer.

They come with the extra ``frameworks``, which ``make test-slow`` installs; the Trainer of transformers is in
tests/recipes/test_trainer.py.
"""

import itertools
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Saturation, SqrtDim
from alphagrad.normalization import Global

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
RULES = {"base": Rule(alpha=SqrtDim()), "controlled": Rule(Global(), Saturation())}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def data():
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=16)


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def loss_of(model, batch):
    return torch.nn.functional.mse_loss(model(batch[0]), batch[1])


def by_hand(rule, epochs=2, clip=None):
    """Where a plain loop goes."""
    model = network()
    optimizer = AlphaGrad(model.parameters(), lr=0.01, momentum=0.9, rule=rule)
    for batch in itertools.chain(*(data() for _ in range(epochs))):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def assert_close(got, expected, **tolerance):
    for p, q in zip(got, expected, strict=True):
        torch.testing.assert_close(p.detach(), q, **tolerance)


def lightning_module(rule, manual=False):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = not manual
            self.model = network()

        def training_step(self, batch, index):
            loss = loss_of(self.model, batch)
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                self.clip_gradients(optimizer, gradient_clip_val=0.5)
                optimizer.step()
            return loss

        def configure_optimizers(self):
            groups = [{"params": list(self.model.parameters()), "name": "everything"}]
            return AlphaGrad(groups, lr=0.01, momentum=0.9, rule=rule)

    return Module()


def lightning_trainer(tmp_path, **settings):
    import lightning

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return lightning.Trainer(max_epochs=2, default_root_dir=tmp_path, enable_checkpointing=False, **quiet, **settings)


@rules
@pytest.mark.parametrize("clip", [None, 0.5])
def test_lightning(rule, clip, tmp_path):
    pytest.importorskip("lightning", reason="lightning comes with the extra 'frameworks'")
    module = lightning_module(rule)
    lightning_trainer(tmp_path, gradient_clip_val=clip).fit(module, data())
    assert_close(module.model.parameters(), by_hand(rule, clip=clip), rtol=1e-6, atol=1e-7)


@rules
def test_lightning_by_hand(rule, tmp_path):
    pytest.importorskip("lightning", reason="lightning comes with the extra 'frameworks'")
    module = lightning_module(rule, manual=True)
    lightning_trainer(tmp_path).fit(module, data())
    assert_close(module.model.parameters(), by_hand(rule, clip=0.5), rtol=1e-6, atol=1e-7)


@rules
@pytest.mark.parametrize("clip", [None, 0.5])
def test_lightning_in_bfloat16(rule, clip, tmp_path):
    pytest.importorskip("lightning", reason="lightning comes with the extra 'frameworks'")
    module = lightning_module(rule)
    lightning_trainer(tmp_path, precision="bf16-mixed", gradient_clip_val=clip).fit(module, data())
    assert_close(module.model.parameters(), by_hand(rule, clip=clip), rtol=0, atol=0.05)


@rules
def test_fabric(rule):
    fabric_of = pytest.importorskip("lightning.fabric", reason="lightning comes with the extra 'frameworks'").Fabric
    for precision, tolerance in (("32-true", 1e-6), ("bf16-mixed", 0.05)):
        fabric = fabric_of(accelerator="cpu", devices=1, precision=precision)
        fabric.launch()
        model = network()
        model, optimizer = fabric.setup(model, AlphaGrad(model.parameters(), lr=0.01, momentum=0.9, rule=rule))
        for batch in itertools.chain(*(data() for _ in range(2))):
            optimizer.zero_grad()
            fabric.backward(loss_of(model, batch))
            fabric.clip_gradients(model, optimizer, max_norm=0.5)
            optimizer.step()
        assert_close(model.parameters(), by_hand(rule, clip=0.5), rtol=0, atol=tolerance)


@rules
def test_accelerate(rule):
    accelerate = pytest.importorskip("accelerate", reason="accelerate comes with the extra 'dev'")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=1)
    model = network()
    optimizer = AlphaGrad(model.parameters(), lr=0.01, momentum=0.9, rule=rule)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, data(), scheduler)
    for batch in itertools.chain(*(loader for _ in range(2))):
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, batch))
            accelerator.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert_close(model.parameters(), by_hand(rule, clip=0.5), rtol=1e-6, atol=1e-7)


def test_timms_layer_decay_and_schedule():
    """Groups with ``lr_scale``, by timm's own functions, under timm's own scheduler."""
    timm = pytest.importorskip("timm", reason="timm comes with the extra 'frameworks'")
    from timm.optim import param_groups_layer_decay
    from timm.scheduler import CosineLRScheduler

    model = timm.create_model("test_vit", num_classes=3, pretrained=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = AlphaGrad(param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.7), lr=1e-3)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert len(set(scales)) > 2
    scheduler = CosineLRScheduler(optimizer, t_initial=10)
    x = torch.randn(2, 3, *model.patch_embed.img_size)
    first = model(x).square().mean().item()
    for step in range(1, 6):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        scheduler.step(step)
    assert model(x).square().mean().item() < first
    rates = [group["lr"] / group["lr_scale"] for group in optimizer.param_groups]
    assert max(rates) == pytest.approx(min(rates))


@pytest.mark.parametrize("wrapper", ["SAM", "GSAM", "Lookahead", "ScheduleFreeWrapper", "OrthoGrad"])
def test_pytorch_optimizers_wrappers(wrapper):
    import pytorch_optimizer

    model = network()
    batch = next(iter(data()))
    rule = RULES["base"]
    kind = getattr(pytorch_optimizer, wrapper)
    if wrapper == "SAM":
        optimizer = kind(model.parameters(), AlphaGrad, lr=0.01, momentum=0.9, rule=rule)
    elif wrapper == "GSAM":
        base = AlphaGrad(model.parameters(), lr=0.01, momentum=0.9, rule=rule)
        schedule = torch.optim.lr_scheduler.StepLR(base, 100)
        rho = pytorch_optimizer.ProportionScheduler(schedule, max_lr=0.01)
        optimizer = kind(model.parameters(), base, model, rho)
    else:
        optimizer = kind(AlphaGrad(model.parameters(), lr=0.01, momentum=0.9, rule=rule))
    if wrapper == "ScheduleFreeWrapper":
        optimizer.train()

    def closure():
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    first = loss_of(model, batch).item()
    for _ in range(20):
        if wrapper == "SAM":
            closure()
            optimizer.first_step(zero_grad=True)
            closure()
            optimizer.second_step(zero_grad=True)
        elif wrapper == "GSAM":
            optimizer.set_closure(torch.nn.functional.mse_loss, batch[0], batch[1])
            optimizer.step()
            optimizer.zero_grad()
        else:
            closure()
            optimizer.step()
            optimizer.zero_grad()
    assert loss_of(model, batch).item() < first


def test_gradual_unfreezing_of_twenty_layers_while_compiled():
    """Each stage gives more tensors a gradient; torch compiles eight times, the rest goes on eagerly.

    The limit is set here: to import timm's optimizers raises it to a million for the whole process.
    """
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(20)))
    model.requires_grad_(False)
    optimizer = AlphaGrad(model.parameters(), lr=1e-3, momentum=0.9, compile=True, fused=False)
    limit = torch._dynamo.config.patch(recompile_limit=8)
    with limit, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for layer in reversed(model):
            layer.requires_grad_(True)
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            before = layer.weight.detach().clone()
            optimizer.step()
            assert not torch.equal(before, layer.weight)
    assert len([w for w in seen if "recompile_limit" in str(w.message)]) == 1


@pytest.mark.parametrize("setting", ["weight_decay", "eps", "dampening", "momentum", "lr"])
def test_numbers_that_change_in_every_step_compile_nothing_new(setting):
    ends = []
    for how in ({"compile": True, "fused": False}, {"fused": False}):
        model = network()
        optimizer = AlphaGrad(model.parameters(), lr=1e-2, momentum=0.9, dampening=0.1, weight_decay=0.1, **how)
        with torch._dynamo.config.patch(recompile_limit=2):
            for step in range(12):
                optimizer.zero_grad()
                loss_of(model, next(iter(data()))).backward()
                optimizer.param_groups[0][setting] = 0.01 + 0.01 * step
                optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_twelve_groups_added_one_by_one_while_compiled():
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(12)))
    optimizer = AlphaGrad(model[0].parameters(), lr=1e-2, compile=True, fused=False)
    with torch._dynamo.config.patch(recompile_limit=4):
        for layer in [None, *model[1:]]:
            if layer is not None:
                optimizer.add_param_group({"params": layer.parameters(), "weight_decay": 0.1})
            optimizer.zero_grad()
            model(torch.ones(3, 2)).sum().backward()
            optimizer.step()
    assert len(optimizer.param_groups) == 12
