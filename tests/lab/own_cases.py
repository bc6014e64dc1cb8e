"""A user's module: models, data, environments and rules, right and wrong ones."""

from __future__ import annotations

MODULE = """
import numpy as np
import torch
from torch import nn
import gymnasium as gym
from alphagrad import Rule
from alphagrad.alpha import Constant
from alphagrad.harness.splits import Splits

def steep(value: float = 30.0) -> Rule:
    return Rule(alpha=Constant(value))

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad)

class Net(nn.Module):
    def __init__(self, shape, classes, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], width), nn.ReLU(),
                                    nn.Linear(width, classes))
    def forward(self, x):
        return self.layers(x)

class Numbered(Net):
    "It asks for numbers while it is built, which a model without numbers has not."
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.gain = [x.item() for x in torch.linspace(0, 1, 3)][1]

class Short(Net):
    def forward(self, x):
        return self.layers(x)[:, :-1]

class Told(Net):
    def forward(self, x):
        return {"logits": self.layers(x)}

class Failing(Net):
    def forward(self, x):
        raise KeyError("lost")

class Leaving(Net):
    def __init__(self, shape, classes):
        raise SystemExit(3)

class Still(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes
    def forward(self, x):
        return x.flatten(1)[:, : self.classes]

def bare(shape, classes):
    return Net(shape, classes)

class Reader(nn.Module):
    def __init__(self, vocabulary, classes, pad, width=8):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width, padding_idx=pad), nn.Linear(width, classes)
    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))

class Bigrams(nn.Module):
    def __init__(self, vocabulary, width=8):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)
    def forward(self, ids):
        return self.head(self.embedding(ids))

class Walk(gym.Env):
    def __init__(self, length: int = 4):
        self.length = length
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(self.length))
        return np.array([self.place / self.length], np.float32), {}
    def step(self, action):
        self.place = max(self.place + (1 if action == 1 else -1), 0)
        over = self.place >= self.length
        return np.array([min(self.place / self.length, 1)], np.float32), float(over), over, False, {}

gym.register("Walk-v0", entry_point=Walk, max_episode_steps=20)

def squares(count: int = 96, wrong: str = "") -> Splits:
    rng = np.random.default_rng(0)
    def split(number):
        labels = rng.integers(0, 2, number)
        images = rng.integers(0, 40, (number, 8, 8, 1)).astype(np.uint8)
        images[labels == 1, 2:6, 2:6] = 255
        return images, labels
    train, test = split(count), split(32)
    if wrong == "floats":
        train = train[0] / 255.0, train[1]
    if wrong == "short":
        test = test[0], test[1][:-1]
    if wrong == "alone":
        train = train[0]
    if wrong == "label":
        test = test[0], test[1] + 5
    return Splits(train, test)

def moods(count: int = 80) -> Splits:
    texts = [f"{'fine' if k % 2 else 'sad'} day {k}" for k in range(count)]
    labels = ["good" if k % 2 else "bad" for k in range(count)]
    return Splits((texts, labels), (texts[:20], labels[:20]))

def counting() -> Splits:
    text = " ".join(map(str, range(300)))
    return Splits([text], [text[:200]])

def pair():
    return 1, 2
"""
