"""Interaction graphs with known modules, and graphs with none; strengths in units of the cutoff."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from interbasis.analysis.graph.interaction_graph import InteractionGraph


def planted(sizes, n_cuts=4, *, seed, inside=0.5, strength=1.5, noise=-1.0, spread=0.7):
    """Modules of the given sizes at every cut; log-strengths about `strength` inside, `noise` elsewhere.

    Returns the graph and its true labels, nodes in random order.
    """
    generator = np.random.default_rng(seed)
    labels = [generator.permutation(np.repeat(np.arange(len(sizes)), sizes)) for _ in range(n_cuts)]
    blocks = []
    for earlier, later in pairwise(labels):
        shape = (len(later), len(earlier))
        strong = (later[:, None] == earlier) & (generator.random(shape) < inside)
        blocks.append(np.exp(np.where(strong, strength, noise) + spread * generator.standard_normal(shape)))
    return InteractionGraph.from_blocks(blocks), labels


def trained(sizes, n_cuts=4, *, seed, cross=0.01, decades=3.0, spread=1.5):
    """As in trained networks: importance falls by decades in each module, strengths are log-normal."""
    generator = np.random.default_rng(seed)
    labels, scale = [], []
    for _ in range(n_cuts):
        labels.append(np.repeat(np.arange(len(sizes)), sizes))
        scale.append(10 ** (-decades / 2 * np.concatenate([np.arange(k) / k for k in sizes])))
    blocks = []
    for p in range(n_cuts - 1):
        noise = np.exp(spread * generator.standard_normal((sum(sizes), sum(sizes))))
        same = labels[p + 1][:, None] == labels[p]
        blocks.append(np.outer(scale[p + 1], scale[p]) * noise * np.where(same, 1.0, cross))
    return InteractionGraph.from_blocks(blocks), labels


def unstructured(kind, width=30, n_cuts=4, *, seed):
    """Graphs without modules: uniform noise, sparse, a few hubs, log-additive strengths of decaying nodes."""
    generator = np.random.default_rng(seed)
    blocks = []
    for _ in range(n_cuts - 1):
        normal = generator.standard_normal((width, width))
        if kind == "uniform":
            log_strength = 0.3 + normal
        elif kind == "sparse":
            log_strength = np.where(generator.random((width, width)) < 0.1, np.abs(normal) + 0.5, -5.0)
        elif kind == "hubs":
            hub = generator.random(width) < 0.15
            log_strength = np.where(hub, 3.0, -2.0) + 1.5 * normal
        else:
            slope = np.linspace(2.5, -2.5, width)
            log_strength = np.add.outer(slope, slope) + 1.5 * normal
        blocks.append(np.exp(log_strength))
    return InteractionGraph.from_blocks(blocks)
