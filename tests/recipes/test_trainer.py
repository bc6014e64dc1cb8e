"""AlphaGrad under the Trainer of transformers."""

from __future__ import annotations

import pytest
import torch

from alphagrad import AlphaGrad, variants

pytest.importorskip("accelerate")


@pytest.mark.long
def test_it_trains_under_the_trainer(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    config = BertConfig(vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertForSequenceClassification(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = [{"input_ids": torch.tensor([k % 12, 3, 4]), "labels": torch.tensor(k % 2)} for k in range(16)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        weight_decay=0.1,
        lr_scheduler_type="constant",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="steps",
        save_steps=4,
    )
    chosen = (AlphaGrad, {"lr": 0.01, "rule": variants.sqrt_dim(k=2.0), "momentum": 0.9})
    trainer = Trainer(model, arguments, train_dataset=rows, optimizer_cls_and_kwargs=chosen)
    trainer.train()
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):  # accelerate wraps it
        optimizer = optimizer.optimizer
    assert isinstance(optimizer, AlphaGrad)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert optimizer.param_groups[0]["rule"] == variants.sqrt_dim(k=2.0)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if p.grad is not None)
    again = Trainer(model, arguments, train_dataset=rows, optimizer_cls_and_kwargs=chosen)
    arguments.max_steps = 6
    again.train(resume_from_checkpoint=True)  # the optimizer's state is read back
    assert again.state.global_step == 6
