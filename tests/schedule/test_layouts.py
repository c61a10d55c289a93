"""Halos and pitches where readers and writers allow them, copies only where they must stand."""

from __future__ import annotations

from tvm import relax

from build.graphs import Net
from tvmcomp.build.lower import lower
from tvmcomp.graph.layers import Copy, FloatConv, Opaque
from tvmcomp.schedule.layouts import assign_layouts

op = relax.op


def test_a_tensor_takes_the_largest_halo_its_readers_need():
    net = Net((1, 3, 8, 8))
    x = net.quantize(net.emit(op.permute_dims(net.x, [0, 2, 3, 1]), "nhwc"), 0.02, 128, "in")
    a = net.quantize(net.conv(x, 24, 3, "c1"), 0.1, 128, "a")
    b = net.quantize(net.conv(a, 16, 3, "c2"), 0.1, 128, "b")
    c = net.quantize(net.conv(a, 16, 5, "c3"), 0.1, 128, "c")
    scheduled = assign_layouts(lower(net.model(b, c)))
    layouts = scheduled.layouts
    assert layouts["in.q"].halo == 1
    assert layouts["in.q"].pitch == 3
    assert (layouts["a.q"].halo, layouts["a.q"].pitch) == (2, 32)
    assert not any(isinstance(layer, Copy) for layer in scheduled.graph.layers)


def test_a_convolution_on_the_callers_memory_or_behind_tvm_code_reads_a_copy():
    net = Net((1, 8, 8, 16))
    a = net.conv(net.x, 16, 3, "c1", quantized=False)
    soft = net.emit(op.nn.softmax(a), "soft")
    b = net.conv(soft, 16, 3, "c2", quantized=False)
    scheduled = assign_layouts(lower(net.model(b)))
    kinds = [type(layer) for layer in scheduled.graph.layers]
    assert kinds == [Copy, FloatConv, Opaque, Copy, FloatConv]
    for layer in scheduled.graph.layers:
        if isinstance(layer, FloatConv):
            assert scheduled.layouts[layer.inputs[0]].halo == 1
        if isinstance(layer, Opaque):
            assert all(scheduled.layouts[n].is_dense for n in (*layer.inputs, layer.output))


def test_a_halo_and_a_dense_reader_of_one_tensor_get_one_copy():
    net = Net((1, 8, 8, 16))
    a = net.conv(net.x, 16, 1, "c1", quantized=False)
    b = net.conv(a, 16, 3, "c2", quantized=False)
    c = net.emit(op.multiply(net.emit(op.nn.softmax(a), "s"), a), "m")
    scheduled = assign_layouts(lower(net.model(b, c)))
    dense = [n for n in scheduled.layouts if n.endswith(".dense")]
    assert len(dense) == 1
    assert scheduled.layouts["c1.add"].halo == 1


def test_an_output_that_is_read_inside_is_copied_out():
    net = Net((1, 8, 8, 16))
    a = net.conv(net.x, 16, 1, "c1", quantized=False)
    b = net.conv(a, 16, 3, "c2", quantized=False)
    scheduled = assign_layouts(lower(net.model(a, b)))
    assert scheduled.graph.outputs[0] == "c1.add.out"
    assert scheduled.layouts["c1.add.out"].is_dense
