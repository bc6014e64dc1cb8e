"""`alphagrad tune`: each optimizer's settings searched with equal budgets."""

from __future__ import annotations

from alphagrad.lab.commands.arguments import parser, whole


def main(argv: list[str]) -> None:
    """`alphagrad tune`."""
    description = (
        "Searches each optimizer's settings in a space of one size (tune/OPTIMIZER.yaml) with one number of trials, in "
        "several independent searches; the median of their best trials is what counts. The same words go on "
        "with a tuning that was interrupted, or raise its budget."
    )
    p = parser("tune", description, "alphagrad tune recipe=dqn_cartpole optimizer=adam,alphagrad --trials 10")
    p.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="as for `alphagrad run -m`")
    p.add_argument("--trials", type=whole, default=20, metavar="N", help="of each search (default %(default)s)")
    p.add_argument(
        "--studies", type=whole, default=5, metavar="N", help="searches of each optimizer (default %(default)s)"
    )
    p.add_argument("--metric", help="a run's last value counts (default: what the recipe's runs are judged by)")
    better = p.add_mutually_exclusive_group()
    better.add_argument("--minimize", action="store_true", default=None, help="less of it is better")
    better.add_argument("--maximize", dest="minimize", action="store_false", help="more of it is better")
    p.add_argument("--sampler", choices=("tpe", "random"), default="tpe", help="default %(default)s")
    p.add_argument("--no-pruning", action="store_true", help="train every trial to its end")
    args = p.parse_intermixed_args(argv)
    from alphagrad.lab.evidence.tables import show
    from alphagrad.lab.tuning.search import tune as search
    from alphagrad.lab.tuning.verdict import TuningPlan, verdict_table

    plan = TuningPlan(args.trials, args.studies, args.metric or "", args.minimize, args.sampler, not args.no_pruning)
    show(verdict_table(*search(args.overrides, plan)))
