"""What the weights of a module do, as read off its computation on one datum."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from taut.networks.architecture import take_apart
from taut.networks.program import Role

KEY = jax.random.key(0)


class Own(eqx.Module):
    """Weights in the other order than Equinox's layers have them, and no layer classes."""

    first: jax.Array
    second: jax.Array

    def __call__(self, x):
        return jnp.tanh(x @ self.first) @ self.second.T


class Skip(eqx.Module):
    line: eqx.nn.Linear
    curve: eqx.nn.MLP

    def __call__(self, x):
        return self.line(x) + self.curve(x)


class Tied(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight.T @ jnp.tanh(self.weight @ x)


class Recurrent(eqx.Module):
    cell: eqx.nn.GRUCell

    def __call__(self, x):
        return jax.lax.scan(lambda h, v: (self.cell(v, h), None), jnp.zeros(3), x)[0]


class Wrapped(eqx.Module):
    """The same layer inside jit, checkpoint and a function with its own derivative."""

    layer: eqx.nn.Linear

    def __call__(self, x):
        @jax.custom_jvp
        def call(weight, x):
            return weight @ x

        call.defjvp(lambda primals, tangents: (call(*primals), call(*tangents)))
        inner = jax.checkpoint(lambda w, x: jax.jit(call)(w, x))
        return inner(self.layer.weight, x) + self.layer.bias


class Tokens(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, x):
        return jnp.sum(jax.vmap(self.layer)(x), 0)


class Convolutional(eqx.Module):
    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __call__(self, x):
        return self.head(jnp.ravel(jax.nn.relu(self.conv(x))))


def roles(module, datum):
    found = take_apart(module, datum)
    return {n: (u.role, u.fan_in) for n, u in zip(found.names, found.uses, strict=True)}


def test_dense_layers():
    module = eqx.nn.MLP(4, 2, 5, 1, key=KEY)
    assert roles(module, jnp.zeros(4)) == {
        ".layers[0].weight": (Role.PRODUCT, 4),
        ".layers[0].bias": (Role.ADDED, None),
        ".layers[1].weight": (Role.PRODUCT, 5),
        ".layers[1].bias": (Role.ADDED, None),
    }


def test_fan_in_follows_the_product_and_not_the_order_of_the_axes():
    module = Own(jnp.ones((4, 7)), jnp.ones((2, 7)))
    assert roles(module, jnp.zeros(4)) == {
        ".first": (Role.PRODUCT, 4),
        ".second": (Role.PRODUCT, 7),
    }


def test_calls_are_entered():
    found = roles(Wrapped(eqx.nn.Linear(4, 3, key=KEY)), jnp.zeros(4))
    assert found[".layer.weight"] == (Role.PRODUCT, 4)
    assert found[".layer.bias"] == (Role.ADDED, None)


def test_a_layer_on_several_positions_shares_its_weights():
    found = roles(Tokens(eqx.nn.Linear(4, 3, key=KEY)), jnp.zeros((6, 4)))
    assert found[".layer.weight"] == (Role.POSITIONS, 4)
    # One bias is added at six positions: it is no independent term of each.
    assert found[".layer.bias"][0] is Role.OTHER


def test_a_convolution():
    module = Convolutional(eqx.nn.Conv2d(2, 3, 3, key=KEY), eqx.nn.Linear(3 * 4 * 4, 1, key=KEY))
    found = roles(module, jnp.zeros((2, 6, 6)))
    assert found[".conv.weight"] == (Role.POSITIONS, 2 * 3 * 3)
    assert found[".head.weight"] == (Role.PRODUCT, 48)


def test_a_weight_that_is_used_twice_is_shared():
    found = take_apart(Tied(jnp.ones((3, 4))), jnp.zeros(4))
    assert found.uses[0].role is Role.OTHER
    assert "more than once" in found.uses[0].reason


def test_a_weight_inside_a_loop_is_shared():
    found = take_apart(Recurrent(eqx.nn.GRUCell(2, 3, key=KEY)), jnp.zeros((5, 2)))
    assert {use.role for use in found.uses} == {Role.OTHER}
    assert "'scan'" in found.uses[0].reason


@pytest.mark.parametrize(
    ("module", "datum", "last"),
    [
        (eqx.nn.MLP(4, 2, 5, 2, key=KEY), jnp.zeros(4), [".layers[2].weight", ".layers[2].bias"]),
        (eqx.nn.Linear(4, 2, use_bias=False, key=KEY), jnp.zeros(4), [".weight"]),
        (eqx.nn.MLP(4, 2, 5, 1, final_activation=jnp.tanh, key=KEY), jnp.zeros(4), []),
        (Own(jnp.ones((4, 7)), jnp.ones((2, 7))), jnp.zeros(4), [".second"]),
        # Affine in each layer, but not in both together.
        (
            eqx.nn.MLP(4, 2, 5, 1, activation=lambda h: h, key=KEY),
            jnp.zeros(4),
            [".layers[1].weight", ".layers[1].bias"],
        ),
        (
            Skip(eqx.nn.Linear(4, 2, key=KEY), eqx.nn.MLP(4, 2, 5, 1, key=KEY)),
            jnp.zeros(4),
            [
                ".line.weight",
                ".line.bias",
                ".curve.layers[1].weight",
                ".curve.layers[1].bias",
            ],
        ),
    ],
)
def test_the_last_layer_is_where_the_output_is_affine(module, datum, last):
    found = take_apart(module, datum)
    assert [found.names[i] for i in found.last_layer] == last
