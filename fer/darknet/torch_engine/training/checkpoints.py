"""What a training in torch saves: weights as the program does, and a checkpoint that it goes on from exactly."""

from pathlib import Path

from fer.darknet.formats.weights import Net
from fer.darknet.torch_engine.training.module import DarknetTraining
from fer.darknet.torch_engine.weights_io import save_weights
from fer.errors import InputError


class Checkpoints:
    """The files of a run beside ``net.weights``: BASE_last.weights and BASE_last.ckpt, at the end BASE_final.weights.

    With ema_alpha= the average is in BASE_ema.weights.
    """

    def __init__(self, net: Net) -> None:
        self._weights = net.weights
        self._batch, self.max_batches = (int(net.sections[0].options[key]) for key in ("batch", "max_batches"))

    @property
    def last(self) -> Path:
        """The checkpoint that a run goes on from."""
        return self._weights.with_name(f"{self._weights.stem}_last.ckpt")

    def save(self, module: DarknetTraining) -> None:
        """Write the weights and the checkpoint of now.

        Raises:
            InputError: weights are not finite, which nothing cures; what was saved before them stays.
        """
        if not all(values.isfinite().all() for values in module.network.state_dict().values()):
            before = f"; go on from {self.last}, which is from before" if self.last.is_file() else ""
            raise InputError(
                f"iteration {module.iteration:,}: weights are no longer finite and are not saved: lower "
                f"darknet.learning_rate or raise darknet.burn_in{before}"
            )
        # the .ckpt last: scores that name it are those of the .weights beside it
        names = ["last", *(["final"] if module.iteration == self.max_batches else [])]
        for name in names:
            self._save_weights(module, name)
        if module.average and module.average.values:
            with module.average.in_place():
                self._save_weights(module, "ema")
        module.save_state(self.last)

    def _save_weights(self, module: DarknetTraining, name: str) -> None:
        path = self._weights.with_name(f"{self._weights.stem}_{name}.weights")
        save_weights(module.network, path, module.iteration * self._batch)
