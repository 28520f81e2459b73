"""What happens between the iterations of a training in torch: progress is shown, weights are saved and scored."""

import time
from typing import Any

import pytorch_lightning as pl

from fer.darknet.formats.photo_folder import DarknetData
from fer.darknet.formats.records import Step
from fer.darknet.formats.run_folder import judged_by
from fer.darknet.formats.weights import Net
from fer.darknet.runs.monitor import Monitor
from fer.darknet.runs.scorer import Scorer
from fer.darknet.runs.setup import METRIC
from fer.darknet.torch_engine.scores import require_scored, validate
from fer.darknet.torch_engine.training.checkpoints import Checkpoints
from fer.darknet.torch_engine.training.module import DarknetTraining

#: Iterations between two saves, as in the programs.
SAVE_EVERY = 100


class Recorder(pl.Callback):
    """Shows each iteration on a `Monitor`, and saves and scores weights as a run of the program does.

    `Checkpoints` are saved each 100 iterations and at the end; the best scored is kept as BASE_best.weights. All is
    done by the first rank, on its device.

    Raises:
        InputError: checkpoints are to be scored, which `fer.darknet.torch_engine.scores` cannot do with such a net.
    """

    def __init__(self, net: Net, data: DarknetData, options: dict[str, Any]) -> None:
        self.monitor: Monitor | None = None
        self._net, self._data = net, data
        self._scores_wanted = options["map"] if net.task == "detector" else options["topk"]
        if self._scores_wanted:
            require_scored(net)
        self.checkpoints = Checkpoints(net)
        self._device = "auto"
        self._batch = int(net.sections[0].options["batch"])
        self._average: float | None = None
        self._clock = time.perf_counter()
        self._scorer: Scorer | None = None
        self._score_every = max(SAVE_EVERY, data.photos["train"] // self._batch)

    def begin(self, monitor: Monitor, iteration: int) -> None:
        """Take the monitor of a run and the iteration that the run starts at; called on the first rank only."""
        self.monitor = monitor
        if self._scores_wanted:
            metric = METRIC[self._net.task]
            self._scorer = Scorer(self._net, self._score_every, metric, self._measure, monitor.score, iteration)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._device = str(trainer.strategy.root_device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DarknetTraining)
        if (batch_idx + 1) % pl_module.subdivisions:
            return
        self._show(pl_module)
        end = pl_module.iteration == self.checkpoints.max_batches
        if pl_module.iteration % SAVE_EVERY == 0 or end:
            if trainer.is_global_zero:
                self.checkpoints.save(pl_module)
                if self._scorer:
                    self._scorer.score_newest(1 if end else self._score_every)
            trainer.strategy.barrier()
            self._clock = time.perf_counter()

    def _show(self, module: DarknetTraining) -> None:
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        if self.monitor is None:  # not the first rank
            return
        loss, iteration = module.loss, module.iteration
        self._average = loss if self._average is None else 0.9 * self._average + 0.1 * loss
        step = Step(iteration, loss, self._average, module.rate(iteration), seconds, iteration * self._batch)
        self.monitor.step(step, {f"train/{name}": value for name, value in module.statistics.items()})

    def _measure(self, checkpoint: Net) -> dict[str, float]:
        return validate(checkpoint, self._data.lists[judged_by(self._data)], self._device)
