"""Placement: which tensors of a canonical model carry a quantize/dequantize pair on a given target.

    x -> conv2d -> add bias -> relu -> y                  pairs on x and y only
    x -> conv2d -> add bias -> add r -> relu -> y         pairs on x, r and y
    x -> sigmoid -> multiply by x -> y                    pairs on x and y: one table
    x -> max_pool2d -> y                                  y carries x's scale and zero point
    x -> mean, concat, add, multiply -> y                 pairs on inputs and output
    a, b -> matmul -> multiply by a number -> y           pairs on a, b and y
    x -> layer_norm -> y                                  pairs on x and y
    x -> multiply by number -> add mask -> softmax -> y   pairs on x and y; the mask stays in float
    index -> take from a table -> y                       a pair on y
    x, h -> products -> gates and state -> h'             pairs on x and h where products read them

An operator without an integer form on the target stays in float, and so does what only it needs: a sum of products
that nothing reads as codes leaves its layer as float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tvmcomp.compress.quantize.graph import SAME_SCALE, Graph, Weighted
from tvmcomp.compress.quantize.recurrence import recurrent
from tvmcomp.target import Target

__all__ = ["Group", "Placement", "Selection", "Skipped", "place"]


@dataclass(frozen=True)
class Selection:
    """What to quantize: `ops` in the target's words (empty is all) less `exclude`, names or patterns."""

    ops: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def refusal(self, op: str, names: tuple[str, ...]) -> str | None:
        """Why an operator of these names is left out, None if it is not."""
        if self.ops and op not in self.ops:
            return f"ops does not list {op}"
        for pattern in self.exclude:
            if any(fnmatchcase(name, pattern) for name in names):
                return f"excluded by {pattern!r}"
        return None


@dataclass(frozen=True)
class Skipped:
    """An operator that stays in float, why, and its multiply-accumulates."""

    name: str
    op: str
    reason: str
    macs: int


@dataclass(frozen=True)
class Group:
    """Operators that run as one integer kernel: `members` in order, the last one makes the result.

    plain: tensors the kernel reads as they are: masks, indices.
    """

    op: str
    members: tuple[str, ...]
    weighted: Weighted | None = None
    plain: tuple[str, ...] = ()

    @property
    def end(self) -> str:
        return self.members[-1]


@dataclass(frozen=True)
class Placement:
    """Tensors with a pair of their own, those that carry another one's, and what runs on integers.

    carried: tensor -> the tensor in `pairs` whose scale and zero point it shares.
    exact:   tensors made from float32 operands, also where these carry a pair for others.
    """

    pairs: tuple[str, ...]
    carried: Mapping[str, str]
    groups: tuple[Group, ...]
    skipped: tuple[Skipped, ...]
    exact: frozenset[str] = frozenset()


def place(graph: Graph, target: Target, selection: Selection) -> Placement:
    """The placement of `graph` on `target`."""
    return _Placer(graph, target, selection).run()


class _Placer:
    def __init__(self, graph: Graph, target: Target, selection: Selection) -> None:
        self._graph = graph
        self._target = target
        self._selection = selection
        self._groups: list[Group] = []
        self._settled: set[str] = set()  # in a group, or decided to stay in float
        self._skipped: list[Skipped] = []
        self._recurrent = recurrent(graph)

    def run(self) -> Placement:
        graph = self._graph
        # Of two convolutions that feed one addition the later takes it: the other is complete by then.
        for name in reversed(graph.values):
            weighted = graph.weighted(name)
            if weighted is not None:
                self._settle(name, weighted.op, weighted)
        self._keep_recurrences()
        # Before chains take the factors of scores, or additions their masks.
        for name in graph.values:
            if graph.op(name) == "nn.softmax":
                self._place_softmax(name)
        unary = self._chains()
        for name in graph.values:
            op = graph.arithmetic(name)
            if op is not None and name not in unary and name not in self._settled:
                self._settle(name, op, None)
        # The chains again: a relu may have gone to the addition before it.
        self._place_chains(self._chains())
        pairs, carried = self._pairs()
        self._skip_the_rest(carried)
        order = {name: i for i, name in enumerate(graph.values)}
        groups = sorted(self._groups, key=lambda group: order[group.end])
        skipped = sorted(self._skipped, key=lambda skip: order[skip.name])
        inside = {member for group in groups for member in group.members}
        return Placement(pairs, carried, tuple(groups), tuple(skipped), self._recurrent - inside)

    def _settle(self, start: str, op: str, weighted: Weighted | None) -> None:
        """A group from `start` on, or why it is none."""
        reason = self._refusal(op, start, weighted)
        members = self._fused(start, op, residual=weighted is not None and reason is None)
        self._settled.update(members)
        if reason is None:
            plain = tuple(self._graph.reads(start)) if op == "embedding" else ()
            self._groups.append(Group(op, members, weighted, plain))
        else:
            self._skipped.append(Skipped(start, op, reason, self._graph.macs(start)))

    def _refusal(self, op: str, name: str, weighted: Weighted | None = None) -> str | None:
        if not self._target.schemes.get(op):
            return f"target {self._target.name} has no integer {op}"
        names = (name,) if weighted is None else (name, weighted.weight.removesuffix(".weight"))
        return self._selection.refusal(op, names)

    def _fused(self, start: str, op: str, *, residual: bool) -> tuple[str, ...]:
        """`start` and what the target fuses behind it, of bias, residual, scale, relu or clip."""
        members, last = [start], op
        while last not in ("relu", "clip"):
            user = self._graph.only_user(members[-1])
            if user is None or user in self._settled:
                break
            kind = self._follower(user, members[-1], last, residual=residual)
            # Fused with what stands right before it, and with the accumulator it ends up in.
            if not kind or not all(self._target.fuses(f"{by}+{kind}") for by in {last, op}):
                break
            members.append(user)
            last = kind
        return tuple(members)

    def _follower(self, user: str, before: str, last: str, *, residual: bool) -> str:
        """What `user` is to the kernel that makes `before`, whose last step is `last`; "" if nothing."""
        graph = self._graph
        if graph.op(user) in ("nn.relu", "clip"):
            return graph.op(user).removeprefix("nn.")
        if last == "matmul" and graph.is_scale(user, before):
            return "scale"
        if last in ("conv2d", "depthwise_conv2d", "dense") and graph.is_bias(user, before):
            return "bias"
        if last == "mul" and len(graph.reads(before)) == 1 and graph.is_bias(user, before):
            return "bias"
        if user in self._recurrent:
            return ""
        return "add" if residual and last != "add" and graph.is_residual(user) else ""

    def _keep_recurrences(self) -> None:
        """Gates and states that no layer has taken, as a bias, stay in float."""
        graph = self._graph
        for name in graph.values:
            if name not in self._recurrent or name in self._settled:
                continue
            self._settled.add(name)
            if graph.op(name) not in SAME_SCALE:
                what = graph.op(name) or "tuple item"
                self._skipped.append(Skipped(name, what, "keeps a recurrence's state exact", 0))

    def _place_softmax(self, name: str) -> None:
        """A softmax over the last axis with the masks and the positive factors in front of it."""
        graph = self._graph
        shape = graph.shape(name)
        if not graph.is_float(name) or int(graph.attrs(name).axis) % len(shape) != len(shape) - 1:
            return
        members, masks = [name], list[str]()
        inner = graph.reads(name)[0]
        while graph.only_user(inner) == members[-1] and inner not in self._settled:
            scores = graph.softmax_mask(inner) or self._scaled(inner)
            if scores is None or graph.shape(scores) != shape:
                break
            masks += [read for read in graph.reads(inner) if read != scores]
            members.append(inner)
            inner = scores
        ordered = tuple(reversed(members))
        reason = self._refusal("softmax", name)
        if name in graph.outputs:
            # Nothing would run faster for it, and small probabilities would be lost.
            reason = "its result leaves the network"
        self._settled.update(ordered)
        if reason is not None:
            self._skipped.append(Skipped(name, "softmax", reason, 0))
            return
        self._groups.append(Group("softmax", ordered, plain=tuple(masks)))
        for mask in masks:
            for source in (mask, *graph.ancestors(mask)):
                if source in graph.values and source not in self._settled:
                    self._settled.add(source)
                    what = graph.op(source) or "tuple item"
                    self._skipped.append(Skipped(source, what, "makes a softmax's mask", 0))

    def _scaled(self, name: str) -> str | None:
        """The x of x times, or by, a positive number."""
        graph = self._graph
        if graph.op(name) not in ("multiply", "divide") or not graph.is_pointwise(name):
            return None
        array = graph.constant(graph.args(name)[1])
        positive = array is not None and float(array.reshape(())) > 0
        return graph.reads(name)[0] if positive else None

    def _chains(self) -> dict[str, str]:
        """Pointwise tensors not settled yet -> the one tensor each is a function of.

        A tensor that is needed inside its chain and outside ends a chain, and starts the next.
        """
        graph = self._graph
        ends: set[str] = set()
        while True:
            root: dict[str, str] = {}
            for name in graph.values:
                if name in self._settled or not graph.is_pointwise(name):
                    continue
                reads = graph.reads(name)
                roots = {
                    root[read] if read in root and read not in ends else read for read in reads
                }
                if len(roots) == 1:
                    root[name] = roots.pop()
            found = {name for name in root if self._is_end(name, root)}
            if found <= ends:
                return root
            ends |= found

    def _is_end(self, name: str, root: Mapping[str, str]) -> bool:
        users = self._graph.users(name)
        return (
            name in self._graph.outputs
            or not users
            or any(root.get(user) != root[name] for user in users)
        )

    def _place_chains(self, root: Mapping[str, str]) -> None:
        for end in [name for name in root if self._is_end(name, root)]:
            members = [end]
            for name in members:
                inner = [read for read in self._graph.reads(name) if root.get(read) == root[end]]
                members.extend(read for read in inner if read not in members)
            ordered = tuple(name for name in root if name in members)
            reasons = [reason for name in ordered if (reason := self._refusal("unary", name))]
            self._settled.update(ordered)
            if reasons:
                self._skipped.append(Skipped(end, "unary", reasons[0], 0))
            else:
                self._groups.append(Group("unary", ordered))

    def _pairs(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """What groups read and make; operators that only move elements pass a scale on."""
        graph = self._graph
        needed: set[str] = set()
        for group in self._groups:
            for member in group.members:
                inside = {*group.members, *group.plain}
                needed.update(read for read in graph.reads(member) if read not in inside)
        ends = [group.end for group in self._groups if not self._leaves_float(group, needed)]
        needed.update(ends)
        carried: dict[str, str] = {}
        for name in graph.values:
            if name in self._recurrent:
                continue
            word = graph.moves(name)
            if word is None:
                continue
            reason = self._refusal(word, name) if word in ("max_pool", "resize") else None
            if reason is not None:
                self._skipped.append(Skipped(name, word, reason, 0))
                continue
            source = graph.reads(name)[0]
            if source not in needed and source not in carried:
                continue
            carried[name] = carried.get(source, source)
        pairs = (name for name in (*graph.inputs, *graph.values) if name in needed)
        return tuple(name for name in pairs if name not in carried), carried

    def _leaves_float(self, group: Group, needed: set[str]) -> bool:
        """Whether a layer's sums are read as float32 alone; other integer operators make codes."""
        if group.weighted is None or group.op == "embedding":
            return False
        pending = [group.end]
        for name in pending:
            if name in needed:
                return False
            for user in self._graph.users(name):
                word = None if user in self._recurrent else self._graph.moves(user)
                if word in ("max_pool", "resize"):
                    if self._refusal(word, user) is None:
                        # It runs several times as fast on codes, whoever reads its result.
                        return False
                elif word is not None:
                    pending.append(user)
        return True

    def _skip_the_rest(self, carried: Mapping[str, str]) -> None:
        graph = self._graph
        known = self._settled | set(carried) | {skip.name for skip in self._skipped}
        for name in graph.values:
            if name in known or graph.op(name) in SAME_SCALE or not graph.reads(name):
                continue
            if not any(map(graph.is_float, (name, *graph.reads(name)))):
                continue  # arithmetic on indices, lengths and conditions
            op = graph.op(name) or "tuple item"
            self._skipped.append(Skipped(name, op, "has no integer form", graph.macs(name)))
