"""Training on 64 x 64: the usual convolutional autoencoder and ours, to the same error; residual networks.

python -m benchmarks.speed.training [--rounds 3] [--steps 120]

The usual one: 32-64-128 channels, stride 2, BatchNorm, transposed convolutions; as written (NCHW, AdamW) and as the
fastest that was known of it (channels last, fused AdamW). Ours is that of DCEC by default. All have 32 numbers of
embedding, batches of 128 and a learning rate of 0.001. They train in turns on the same images; the goal is the mean
squared error on images that none has seen which the usual one has after ``--steps`` steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.images import scaled_images
from benchmarks.speed.roofs import measure_roofs
from benchmarks.speed.timing import alternate, machine, ratio, shown, table
from medstrata.learning.nets import Architecture, Decoder, Encoder, Layers, initialise
from medstrata.learning.resnet import ResNet

SHAPE = (1, 64, 64)
BATCH, RATE, EMBEDDING = 128, 1e-3, 32
HELD_OUT, SEEN = 400, 4000
CHUNK = 10  # steps of each network in turn
MOST = 4  # times as many steps as the usual network, after which another is given up
Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]


@dataclass
class Learner:
    """A network in training: steps done, their CPU seconds, and the CPU seconds at which it reached the goal."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int = 0
    seconds: float = 0.0
    errors: list[tuple[int, float, float]] = field(default_factory=list)  # steps, CPU seconds, error after them

    def reached(self, goal: float) -> tuple[int, float] | None:
        """The first steps and CPU seconds with an error of at most ``goal``."""
        return next(((steps, seconds) for steps, seconds, error in self.errors if error <= goal), None)


def usual_autoencoder() -> nn.Sequential:
    """The autoencoder that most code of deep clustering has, written layer by layer."""
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(128 * 64, EMBEDDING), nn.Linear(EMBEDDING, 128 * 64), nn.ReLU()]
    layers.append(nn.Unflatten(1, (128, 8, 8)))
    for before, after in ((128, 64), (64, 32)):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 1, 4, 2, 1))


def our_autoencoder() -> nn.Sequential:
    """As DCEC makes it by default (``medstrata.methods.dcec``), with weights of torch's own seed."""
    size, layers = Architecture(), Layers()
    encoder = Encoder(SHAPE, size.widths, size.embedding_size, layers)
    decoder = Decoder(SHAPE, size.widths, size.embedding_size, layers)
    network = nn.Sequential(encoder, nn.LeakyReLU(layers.leak), decoder)
    initialise(network, torch.Generator().manual_seed(torch.initial_seed()))
    return network


def resnet18() -> nn.Module:
    """He et al. 2016 with one input channel and a stem of 7 x 7, stride 2."""
    from monai.networks.nets import ResNet as Plain  # type: ignore[import-not-found]

    network: nn.Module = Plain(
        "basic", [2, 2, 2, 2], [64, 128, 256, 512], 2, 1, conv1_t_stride=2, num_classes=128, bias_downsample=False
    )
    return network


def reconstruction(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(network(x), x)


def flops_of(network: nn.Module, loss: Loss, images: torch.Tensor) -> float:
    """FLOPs of one step, forward and backward, per image: products of matrices and convolutions only."""
    with FlopCounterMode(display=False) as counter:
        loss(network, images).backward()
    network.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / len(images)


def learner(make: Callable[[], nn.Module], seed: int, tuned: bool) -> Learner:
    """``tuned``: channels last and fused AdamW."""
    torch.manual_seed(seed)
    network = make().train()
    if tuned:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Learner(network, torch.optim.AdamW(network.parameters(), RATE, fused=tuned, weight_decay=0.0))


def step(one: Learner, x: torch.Tensor, loss: Loss) -> None:
    one.optimizer.zero_grad(set_to_none=True)
    loss(one.network, x).backward()
    one.optimizer.step()


def train_chunk(one: Learner, images: torch.Tensor, held_out: torch.Tensor, clock: Callable[[], float]) -> None:
    """Do ``CHUNK`` steps and then measure the error, outside of the time."""
    one.network.train()
    started = clock()
    for number in range(one.steps, one.steps + CHUNK):
        chosen = torch.randint(len(images), (BATCH,), generator=torch.Generator().manual_seed(number))
        step(one, images.index_select(0, chosen), reconstruction)
    one.seconds += clock() - started
    one.steps += CHUNK
    one.network.eval()
    with torch.inference_mode():
        one.errors.append((one.steps, one.seconds, float(reconstruction(one.network, held_out))))


MAKERS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "usual, NCHW, AdamW": (usual_autoencoder, False),
    "usual, channels last, fused": (usual_autoencoder, True),
    "ours (DCEC's default)": (our_autoencoder, True),
}


def race(images: torch.Tensor, held_out: torch.Tensor, seed: int, steps: int) -> tuple[dict[str, Learner], float]:
    """Train all in turns for ``steps`` steps, then those that are not at the first one's error until they are."""
    learners = {name: learner(make, seed, tuned) for name, (make, tuned) in MAKERS.items()}
    while next(iter(learners.values())).steps < steps:
        for one in learners.values():
            train_chunk(one, images, held_out, time.process_time)
    goal = next(iter(learners.values())).errors[-1][2]
    for one in learners.values():
        while one.reached(goal) is None and one.steps < MOST * steps:
            train_chunk(one, images, held_out, time.process_time)
    return learners, goal


def report_autoencoders(seeds: int, steps: int, peak: float) -> str:
    """Races with ``seeds`` seeds; ``peak``: FLOP/s of a matrix product."""
    images = scaled_images(SEEN + HELD_OUT)
    images, held_out = images[:SEEN], images[SEEN:]
    rates: dict[str, list[float]] = {name: [] for name in MAKERS}
    to_goal: dict[str, list[float]] = {name: [] for name in MAKERS}
    goals, shown_images = [], {name: list[int]() for name in MAKERS}
    for seed in range(seeds):
        learners, goal = race(images, held_out, seed, steps)
        goals.append(goal)
        for name, one in learners.items():
            reached = one.reached(goal)
            rates[name].append(BATCH * one.steps / one.seconds)
            to_goal[name].append(reached[1] if reached else float("inf"))
            shown_images[name].append(BATCH * (reached[0] if reached else one.steps))
    first = next(iter(MAKERS))
    rows = []
    for name, (make, tuned) in MAKERS.items():
        flops = flops_of(learner(make, 0, tuned).network, reconstruction, images[:BATCH])
        rate = median(rates[name])
        ratios = ratio(rates[name], rates[first]), ratio(to_goal[first], to_goal[name])
        images_to = f"{median(shown_images[name]):.0f}"
        rows.append((name, flops / 1e6, rate, ratios[0], f"{flops * rate / peak:.0%}", images_to, ratios[1]))
    header = ("autoencoder", "MFLOP/image", "images per CPU s", "ratio", "of matmul peak", "images to the goal")
    goal_text = f"Goal: mean squared error {', '.join(map(shown, goals))} on {HELD_OUT} held-out images, by seed."
    return "\n".join([table((*header, "times as fast to the goal"), rows), "", goal_text])


def report_residual(rounds: int, peak: float) -> str:
    """One step of residual networks alone, on a loss that costs nothing: what an encoder can do."""
    images = scaled_images(BATCH)

    def mean_square(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network(x)
        return found.square().mean()

    learners = {
        "ResNet of DeepMCAT (32, 64, 128)": learner(lambda: ResNet(SHAPE, (32, 64, 128)), 0, tuned=True),
        "ResNet-18, NCHW, AdamW": learner(resnet18, 0, tuned=False),
        "ResNet-18, channels last, fused": learner(resnet18, 0, tuned=True),
    }

    def work(one: Learner) -> Callable[[], None]:
        return lambda: step(one, images, mean_square)

    seconds = alternate({name: work(one) for name, one in learners.items()}, rounds)
    rows = []
    for name, one in learners.items():
        flops, rate = flops_of(one.network, mean_square, images), BATCH / median(seconds[name])
        rows.append((name, flops / 1e6, rate, f"{flops * rate / peak:.0%}"))
    return table(("network", "MFLOP/image", "images per CPU s", "of matmul peak"), rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.training")
    parser.add_argument("--rounds", type=int, default=3, help="seeds of the autoencoders, rounds of the others")
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine() + "\n")
    peak = measure_roofs().matmul
    print(report_autoencoders(given.rounds, given.steps, peak) + "\n")
    print(report_residual(given.rounds, peak))


if __name__ == "__main__":
    main()
