"""`alphagrad alpha`: the α of every tensor of a recipe's network."""

from __future__ import annotations

from alphagrad.lab.commands.arguments import parser


def main(argv: list[str]) -> None:
    """`alphagrad alpha`."""
    description = "The α every tensor of a recipe's network gets under each rule, with d, fan-in and the total."
    p = parser("alpha", description, "alphagrad alpha recipe=dqn_cartpole optimizer=sqrt_dim alpha.k=3")
    p.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="as for `alphagrad run`")
    overrides = p.parse_args(argv).overrides
    from alphagrad.lab.config.catalogue import explaining
    from alphagrad.lab.config.compose import compose, hydra_initialized
    from alphagrad.lab.evidence.tables import show
    from alphagrad.lab.inspection.alpha_table import alpha_table

    with hydra_initialized():
        config = compose(overrides)
        with explaining(overrides):
            tables = alpha_table(config)
    for table in tables:
        show(table)
