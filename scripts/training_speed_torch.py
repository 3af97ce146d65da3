"""The training step of the preset `default` in PyTorch on the CPU: what `scripts.training_speed` compares ours with.

Runs in an interpreter of its own, which has torch and numpy and nothing of this repository. The first argument is JSON:
the recipe, the views, and where MNIST is. Says {"versions": ...} when it is warm; then each line N on standard input is
answered with the seconds that N steps took, {"step": seconds}, after one step that is not timed.

Networks, losses, views, batch sizes and update rules are ours. What PyTorch has a faster way for is written that way:
Adam is fused, gradients are asked for where they are needed only, activations are in place, memory is channels-last.
"""

import gzip
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]
from torch import nn
from torch.nn import functional  # type: ignore[import-not-found]

Tensor = Any
"""Images are float32 [B, C, H, W], -1..1; logits float32 [B, K]."""


def build_discriminator(width: float, class_count: int) -> Any:
    """Returns D of `training.models`, architecture `deep`, for images of 28 x 28 x 1."""
    layers: list[Any] = []
    channels = 1
    for filters, kernel, stride in ((32, 5, 2), (64, 3, 2), (64, 3, 1), (128, 3, 2), (128, 3, 1)):
        wide = max(8, round(width * filters))
        layers += [nn.Conv2d(channels, wide, kernel, stride, kernel // 2), nn.BatchNorm2d(wide, 1e-5, 0.1)]
        layers += [nn.LeakyReLU(0.1, inplace=True)]
        channels = wide
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * channels, class_count))


def build_generator(latent_size: int) -> Any:
    """Returns G of `training.models`, architecture `deep`, for images of 28 x 28 x 1."""
    layers: list[Any] = [nn.Linear(latent_size, 7 * 7 * 64), nn.Unflatten(1, (64, 7, 7))]
    layers += [nn.BatchNorm2d(64, 1e-3, 0.01), nn.LeakyReLU(0.1, inplace=True)]
    for before, after, kernel, stride in ((64, 32, 4, 2), (32, 16, 3, 1)):
        layers += [nn.ConvTranspose2d(before, after, kernel, stride, 1), nn.BatchNorm2d(after, 1e-3, 0.01)]
        layers += [nn.LeakyReLU(0.1, inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh())


def call_frozen_statistics(network: Any, inputs: Tensor) -> Tensor:
    """Calls a network with the batch's own statistics and leaves the moving ones alone."""
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.track_running_stats = False
    outputs = network(inputs)
    for layer in norms:
        layer.track_running_stats = True
    return outputs


def random_view(images: Tensor, view: dict[str, float], grid: int) -> Tensor:
    """Returns one random view of each image: a projective transformation, then an elastic field of `grid` knots."""

    def uniform(limit: float) -> Tensor:
        return (2.0 * torch.rand(len(images)) - 1.0) * limit

    def sample(picture: Tensor, places: Tensor) -> Tensor:
        return functional.grid_sample(picture, places, padding_mode="border", align_corners=False)

    angle, shear = uniform(math.radians(view["rotation_degrees"])), uniform(view["shear"])
    zoom_x, zoom_y = 1.0 + uniform(view["scale"]), 1.0 + uniform(view["scale"])
    a, b = torch.cos(angle) / zoom_x, (shear * torch.cos(angle) - torch.sin(angle)) / zoom_y
    c, d = torch.sin(angle) / zoom_x, (shear * torch.sin(angle) + torch.cos(angle)) / zoom_y
    # Places run from -1 to 1: a shift by a fraction of the side is twice as much.
    rows = [a, b, 2.0 * uniform(view["shift"]), c, d, 2.0 * uniform(view["shift"])]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    moved = sample(images, functional.affine_grid(theta, images.shape, align_corners=False))
    if view["elastic"]:
        coarse = torch.randn(len(images), 2, grid, grid)
        field = functional.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=False)
        places = functional.affine_grid(torch.eye(2, 3)[None], [1, *images.shape[1:]], align_corners=False)
        moved = sample(moved, places + 2.0 * view["elastic"] * field.permute(0, 2, 3, 1))
    return moved


def normalised(values: Tensor) -> Tensor:
    """Scales each of B arrays to a root mean square of 1."""
    return values * torch.rsqrt(values.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-20)


def adversarial_views(
    classify: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor, radius: float, search_radius: float
) -> Tensor:
    """Returns images moved by `radius` in the direction that changes their classes most; see `training.adversarial`."""
    change = (search_radius * normalised(torch.randn_like(images))).requires_grad_()
    difference = functional.cross_entropy(classify(images + change), targets, reduction="sum")
    return images + radius * normalised(torch.autograd.grad(difference, change)[0])


def information_loss(weak: Tensor, strong: Tensor, average: Tensor, decay: float) -> Tensor:
    """Returns minus the mutual information of two views' classes, nats; moves `average` float32 [K, K]."""
    counts = torch.softmax(weak, dim=1).T @ torch.softmax(strong, dim=1) / len(weak)
    joint = 0.5 * (counts + counts.T)
    with torch.no_grad():
        average.lerp_(joint, 1.0 - decay).clamp_(min=1e-8)
        marginal = average.sum(dim=0)
        gain = average.log() - marginal.log()[:, None] - marginal.log()
    return -(joint * gain).sum()


def make_step(given: dict[str, Any]) -> Callable[[int], list[float]]:
    """Returns the step: it takes its number and returns the metrics."""
    recipe, weak, strong, grid = given["recipe"], given["weak"], given["strong"], given["elastic_grid"]
    class_count, per_class = given["classes"], given["labels_per_class"]
    pile = np.frombuffer(gzip.decompress(Path(given["images"]).read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress(Path(given["labels"]).read_bytes()), np.uint8, offset=8)
    shown = np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in range(class_count)])
    unlabelled_images = torch.from_numpy(pile.reshape(-1, 1, 28, 28).copy())
    labelled_images = unlabelled_images[torch.from_numpy(shown)]

    discriminator = build_discriminator(recipe["width"], class_count).to(memory_format=torch.channels_last)
    generator = build_generator(recipe["latent_size"]).to(memory_format=torch.channels_last)
    teacher = [parameter.detach().clone() for parameter in discriminator.parameters()]
    average = torch.full((class_count, class_count), 1.0 / class_count**2)
    optimizers, schedules = [], []
    for network, name in ((discriminator, "learning_rate"), (generator, "generator_learning_rate")):
        adam = torch.optim.Adam(network.parameters(), recipe[name], (recipe["adam_beta_1"], 0.999), 1e-7, fused=True)
        optimizers.append(adam)
        schedules.append(torch.optim.lr_scheduler.CosineAnnealingLR(adam, recipe["steps"]))
    order = torch.randperm(len(unlabelled_images))
    sizes = [recipe["labelled_batch"], recipe["unlabelled_batch"]]

    def to_network_range(images: Tensor) -> Tensor:
        return images.float() / 127.5 - 1.0

    def classify(images: Tensor) -> Tensor:
        return call_frozen_statistics(discriminator, images)

    def step(number: int) -> list[float]:
        # Batches and views.
        y = torch.arange(sizes[0])[torch.randperm(sizes[0])] % class_count
        x = to_network_range(labelled_images[y * per_class + torch.randint(per_class, (sizes[0],))])
        place = number * sizes[1] % (len(order) - sizes[1])
        u = to_network_range(unlabelled_images[order[place : place + sizes[1]]])
        x = random_view(x, strong if recipe["labelled_view"] == "strong" else weak, grid)
        weak_views, strong_views = random_view(u, weak, grid), random_view(u, strong, grid)

        # D on all losses.
        with torch.no_grad():
            z = torch.randn(recipe["generated_batch"], recipe["latent_size"])
            fakes = call_frozen_statistics(generator, z)
        labelled_logits, strong_logits = torch.split(discriminator(torch.cat([x, strong_views])), sizes)
        supervised = functional.cross_entropy(labelled_logits, y)
        weak_logits = classify(weak_views)
        information = information_loss(weak_logits, strong_logits, average, given["information_decay"])
        images = weak_views[: recipe["adversarial_batch"]]
        targets = torch.softmax(weak_logits[: len(images)].detach(), dim=1)
        radii = recipe["adversarial_radius"], given["search_radius"]
        adversarial = functional.cross_entropy(classify(adversarial_views(classify, images, targets, *radii)), targets)
        real, fake = torch.logsumexp(strong_logits, dim=1), torch.logsumexp(classify(fakes), dim=1)
        unsupervised = 0.5 * (functional.softplus(-real).mean() + functional.softplus(fake).mean())
        total = (
            supervised
            + recipe["information_weight"] * information
            + recipe["adversarial_weight"] * adversarial
            + recipe["unsupervised_weight"] * unsupervised
        )
        optimizers[0].zero_grad()
        total.backward()
        optimizers[0].step()

        # G, then the moving average.
        z = torch.randn(recipe["generated_batch"], recipe["latent_size"])
        loss = functional.softplus(-torch.logsumexp(classify(generator(z)), dim=1)).mean()
        parameters = list(generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizers[1].step()
        for schedule in schedules:
            schedule.step()
        decay = min(recipe["ema_decay"], (1.0 + number) / (10.0 + number))
        with torch.no_grad():
            for mean, parameter in zip(teacher, discriminator.parameters(), strict=True):
                mean.lerp_(parameter, 1.0 - decay)
            probabilities = torch.softmax(strong_logits, dim=1)
            prior = probabilities.mean(dim=0)
            accuracy = (labelled_logits.argmax(dim=1) == y).float().mean()
            entropy = -(prior * torch.log(prior + 1e-8)).sum() / math.log(class_count)
            confidence = probabilities.amax(dim=1).mean()
            realness = torch.sigmoid(real).mean(), torch.sigmoid(fake).mean()
        metrics = [supervised, accuracy, information, adversarial, unsupervised, *realness, confidence, entropy, loss]
        shown: list[float] = torch.stack(metrics).tolist()
        return shown

    return step


def main() -> None:
    """Warms up, then times steps as standard input asks for."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    torch.manual_seed(0)
    step = make_step(given)
    done = 0
    for _ in range(given["warmup"]):
        step(done)
        done += 1
    print(json.dumps({"versions": {"torch": str(torch.__version__)}}), flush=True)
    for line in sys.stdin:
        step(done)
        started = time.perf_counter()
        for number in range(done + 1, done + 1 + int(line)):
            step(number)
        print(json.dumps({"step": time.perf_counter() - started}), flush=True)
        done += 1 + int(line)


if __name__ == "__main__":
    main()
