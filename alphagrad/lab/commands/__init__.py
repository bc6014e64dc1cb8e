"""A file for each subcommand, with its arguments, its help and ``main(argv)``, which may return an exit status."""

NAMES = (
    "run",
    "tune",
    "resume",
    "status",
    "ls",
    "alpha",
    "report",
    "export",
    "export-model",
    "claims",
    "instruments",
    "landscape",
    "watch",
    "ui",
    "completion",
)
"""The subcommands that people use, as `alphagrad --help` lists them; a dash is an underscore in the file's name."""
HIDDEN = ("complete",)
PARALLEL = ("run", "resume")
"""Those that torchrun may start."""
HELP = """\
alphagrad: a laboratory for the AlphaGrad optimizer and its variants

  alphagrad run [-m] [SETTING=VALUE ...]   train one run, or with -m every combination of values
  alphagrad tune [SETTING=VALUE ...]       search each optimizer's settings, with equal budgets; compare the best
  alphagrad resume RUN_ID|FOLDER           go on with a run or study that was stopped
  alphagrad status [ID]                    how far a study or run is, while it trains or afterwards
  alphagrad ls                             recipes, variants and baselines, a line each
  alphagrad alpha [SETTING=VALUE ...]      the α every tensor of a recipe's network gets under each rule
  alphagrad report [ID ...]                tables with intervals of studies or runs; --html FILE: all there is to see
  alphagrad export [ID] --to FILE          a study's runs or curves as a table: FILE.parquet or FILE.csv
  alphagrad export-model RUN --to FILE     a run's network as FILE.onnx, with its accuracy, bytes and latency
  alphagrad claims [C1 ...]                the paper's claims, and what the runs say of each
  alphagrad instruments [ID]               which tensors saturate and when, of what instruments= measured
  alphagrad watch RUN_ID|FOLDER            a run's policy at work, as a video file
  alphagrad landscape RUN ...              the loss around the weights of runs, and how sharp it is there
  alphagrad ui                             MLflow's comparison UI on the store in use
  alphagrad completion bash|zsh            tab completion: eval "$(alphagrad completion bash)"

Examples
  alphagrad run recipe=dqn_cartpole optimizer=sin_tanh seed=3
  alphagrad run -m recipe=dqn_cartpole optimizer=adam,alphagrad seed='range(5)'
  alphagrad run --cfg job optimizer=saturation
  alphagrad tune recipe=dqn_cartpole optimizer=adam,alphagrad --trials 10
  alphagrad alpha recipe=dqn_cartpole optimizer=sqrt_dim alpha.k=3
  alphagrad report --plot curves.png

`alphagrad COMMAND --help` says more. --traceback, anywhere, shows the whole traceback of an error;
--allow-target PREFIX lets a configuration call what neither alphagrad's nor your own names (`_target_`).
Environment: ALPHAGRAD_CONF (a folder of your own configuration, searched first), ALPHAGRAD_DATA (data sets),
MLFLOW_TRACKING_URI.
"""
"""What `alphagrad --help` shows."""
