"""A network of one convolution, so that steps compile fast."""

from flax import linen as nn

from lmjax.masking import layers
from lmjax.models.layers import Network, relu
from lmjax.models.preprocessing import Preprocessing

CLASSES, SIZE = 3, 16
PREPROCESSING = Preprocessing(resize=SIZE, crop=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


class Small(Network):
    """Convolution, batch norm if asked for, mean, classifier."""

    batch_norm: bool = True

    @nn.compact
    def __call__(self, inputs):
        x = self.conv(6, 3, 2, name="conv")(self.begin(inputs))
        x = relu(self.norm(name="bn")(x) if self.batch_norm else x)
        return self.classify(layers.global_average_pool(x), "fc")
