"""Pictures made on the spot for the tests of training."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZES = {"svhn_train": 120, "svhn_test": 40, "mnist_train": 120, "mnist_test": 60}


def grey_digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    """White digits on black, 28x28, as MNIST has them."""
    labels = np.arange(n, dtype=np.uint8) % 10
    font = ImageFont.load_default(24)
    pictures = np.zeros((n, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        image = Image.new("L", (28, 28))
        ImageDraw.Draw(image).text((7 + i % 3, -2 + i % 4), str(label), 255, font=font)
        pictures[i] = np.asarray(image)
    return pictures, labels
