"""Models in which nothing can be found, for the lab; `headatlas.model.random_weights` makes them."""

from headatlas.model.random_weights import sharp as sharp
from headatlas.model.random_weights import untrained as untrained
from headatlas.model.random_weights import untrained_twin as untrained_twin
from headatlas.model.random_weights import weight_shuffled as weight_shuffled
