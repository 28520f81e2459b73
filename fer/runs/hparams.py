"""The HPARAMS tab of TensorBoard: a run's config as a row, beside the last values of its scalars.

TensorBoard finds the columns by itself in all runs that it is given: first the keys that differ between them, and the
first five scalars by name, which are those of ``best/``. From torch's own ``add_hparams`` it would take the columns of
whichever run it reads first, and show the first five keys by name.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fer.system.addresses import without_password

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config by dotted keys; lists, which are values, as text.

    >>> flat({"seed": 0, "optimizer": {"lr": 0.1, "betas": [0.9, 0.999]}, "init": None})
    {'seed': 0, 'optimizer.lr': 0.1, 'optimizer.betas': '[0.9, 0.999]', 'init': None}
    """
    return dict(_flat(config, prefix))


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, int | float | str | None) else str(value)


def begin_session(writer: "SummaryWriter", config: Mapping[str, Any]) -> None:
    """Write the row of a run into its log."""
    from torch.utils.tensorboard.summary import hparams

    # torch leaves out what is None, and takes true and false for numbers
    values = {key: _shown(value) for key, value in flat(config).items()}
    writer._get_file_writer().add_summary(hparams(values, {})[1])


def end_session(writer: "SummaryWriter") -> None:
    """Say that the run of the row has ended well."""
    from torch.utils.tensorboard.summary import hparams

    writer._get_file_writer().add_summary(hparams({}, {})[2])


def _shown(value: Any) -> float | str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return without_password(value) if isinstance(value, str) else value
