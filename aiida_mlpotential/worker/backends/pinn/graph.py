"""A PiNN network as one TensorFlow graph: the energy of each atom and its gradient by the vectors between atoms.

Neither the Estimator nor the ASE calculator of PiNN is used: the one is gone from TensorFlow 2.16 on, the other returns
the previous structure's result, as its data pipeline reads ahead. The neighbour pairs come from outside, in double
precision; PiNN's own list has every crystal periodic in all directions and takes coordinates in single precision.
"""

from __future__ import annotations

import copy
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import OutOfMemory, WorkerError
from ...frames import FloatArray, IntArray
from ...memory import available_memory
from .files import PinnModel

SingleArray = npt.NDArray[np.float32]
#: Symmetry functions fail where a batch has no pair at all; two atoms so far apart (in cutoffs) go with every batch.
_DUMMY_DISTANCE = 0.5
#: From so many rows of the largest tensors on a batch is checked against the memory before it is tried.
_LARGE = 20000
#: Part of all tensors of the graph that is there at once: 0.12 measured with PiNet2 of rank 3, with a margin.
_SHARE_AT_ONCE = 1 / 6
#: Operations whose result is no memory of its own.
_VIEWS = frozenset({'Placeholder', 'Identity', 'Const', 'Reshape', 'ExpandDims', 'Squeeze', 'Shape', 'StridedSlice'})
_MEMORY_TEXTS = ('out of memory', 'OOM when allocating')


class PinnGraph:
    """The network of a model with the weights of its checkpoint, ready in one session."""

    def __init__(self, libraries: tuple[Any, Any], model: PinnModel, directory: Path, config: Any) -> None:
        """Build the graph once; it takes any number of atoms and pairs.

        :param libraries: the modules tensorflow and pinn
        :param directory: where the checkpoint lies
        :param config: of the session
        :raises WorkerError: if the network cannot be built, or the checkpoint does not hold all of its variables
        """
        self._tf, pinn = libraries
        self._model = model
        self._dummy = model.network == 'BPNN'
        v1 = self._tf.compat.v1
        graph = self._tf.Graph()
        with graph.as_default():
            self._elements = v1.placeholder('int32', [None], 'elements')
            self._pairs = v1.placeholder('int32', [None, 2], 'pairs')
            self._vectors = v1.placeholder('float32', [None, 3], 'vectors')
            try:
                self._energies = self._build(pinn)
                self._gradient = self._tf.gradients(self._tf.reduce_sum(self._energies), self._vectors)[0]
                if self._gradient is not None:
                    self._gradient = self._tf.convert_to_tensor(self._gradient)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError) as exception:
                reason = f'{type(exception).__name__}: {" ".join(str(exception).split())[:200]}'
                raise WorkerError(
                    'ERROR_MODEL_UNSUPPORTED', f'PiNN cannot build the network {model.network} of params.yml ({reason})'
                ) from exception
            self._way = v1.placeholder('float32', [None, 3], 'way')
            self._bend: Any = None
            self._row_bytes = _bytes_of_a_row(graph) if config.device_count.get('GPU', 1) == 0 else 0
            self._session = v1.Session(graph=graph, config=config)
            self._restore(v1.global_variables(), directory / model.checkpoint)

    def _build(self, pinn: Any) -> Any:
        """Return the output of the network for each atom, before scaling, ``(A,)``."""
        tf = self._tf
        parameters = copy.deepcopy(dict(self._model.parameters))
        if self._model.network == 'BPNN':
            parameters['use_jacobian'] = False  # the ordinary gradient is the same and takes less memory
        network = pinn.get_network({'name': self._model.network, 'params': parameters})
        tensors = {
            'ind_1': tf.zeros_like(self._elements)[:, None],
            'elems': self._elements,
            'ind_2': self._pairs,
            'diff': self._vectors,
            # Of the vectors, not fed beside them: the gradient has to pass through it.
            'dist': tf.norm(self._vectors, axis=1),
        }
        # PiNN prepares these together with its own neighbour list, or not at all.
        if self._model.network == 'BPNN':
            tensors = network.preprocess.symm_func(tensors)
        elif self._model.network != 'LJ':
            tensors['prop'] = tensors['p1'] = tf.cast(network.preprocess.embed(self._elements), 'float32')
        return network(tensors)

    def _restore(self, variables: Any, prefix: Path) -> None:
        """Give every variable of the network its value from the checkpoint, and insist that they fit one another."""
        try:
            # Seen from the work directory, as TensorFlow takes brackets in a path for a pattern.
            reader = self._tf.train.load_checkpoint(os.path.relpath(prefix))
            shapes = reader.get_variable_to_shape_map()
            wanted = {variable.name.rpartition(':')[0]: variable for variable in variables}
            self._compare({name: variable.shape.as_list() for name, variable in wanted.items()}, shapes)
            values = {name: np.asarray(reader.get_tensor(name), dtype='f4') for name in wanted}
        except (
            self._tf.errors.OpError,
            ValueError,
            RuntimeError,
            IndexError,
        ) as exception:  # a reader raises all of them
            reason = ' '.join(str(exception).split())[:200]
            raise WorkerError(
                'ERROR_MODEL_CORRUPT', f'the checkpoint {self._model.checkpoint} cannot be read: {reason}'
            ) from exception
        broken = sorted(name for name, value in values.items() if not np.isfinite(value).all())
        if broken:
            raise WorkerError(
                'ERROR_MODEL_CORRUPT',
                f'the checkpoint {self._model.checkpoint} holds NaN or infinity in {broken[0]}: take an earlier one',
            )
        self._session.run(
            [variable.initializer for variable in wanted.values()],
            {variable.initializer.inputs[1]: values[name] for name, variable in wanted.items()},
        )

    def _compare(self, wanted: dict[str, list[int]], shapes: dict[str, list[int]]) -> None:
        missing = sorted(set(wanted) - set(shapes))
        # Beside the network's own a checkpoint holds those of the optimiser, which end in other words.
        roots = tuple({name.partition('/')[0] + '/' for name in wanted if '/' in name})
        beyond = sorted(
            name
            for name in set(shapes) - set(wanted)
            if roots and name.startswith(roots) and name.endswith(('/kernel', '/bias'))
        )
        other = sorted(name for name in set(wanted) & set(shapes) if wanted[name] != list(shapes[name]))
        for names, what in ((missing, 'lacks'), (beyond, 'has beyond the network'), (other, 'has in another shape')):
            if names:
                raise WorkerError(
                    'ERROR_MODEL_CORRUPT',
                    f'the checkpoint {self._model.checkpoint} {what} {len(names)} of the variables, first {names[0]}: '
                    'it is not of the network in params.yml; copy both from the same training directory',
                )

    def _check_memory(self, first: IntArray) -> None:
        """Refuse what cannot fit: where memory ends on the CPU, some of TensorFlow's operations end the process."""
        rows = len(first)
        if self._model.network == 'BPNN':  # with angles, a row for each two neighbours of an atom
            rows = int(np.square(np.bincount(first)).sum())
        left = _memory_left() if rows >= _LARGE and self._row_bytes else None
        needed = int(rows * self._row_bytes * _SHARE_AT_ONCE)
        if left is not None and needed > left:
            raise OutOfMemory(f'about {needed >> 20} MB are needed, {left >> 20} MB are there')

    def run(
        self, numbers: IntArray, first: IntArray, second: IntArray, vectors: FloatArray, gradient: bool
    ) -> tuple[SingleArray, SingleArray | None]:
        """Evaluate atoms of any number of frames.

        :param numbers: atomic numbers, ``(A,)``
        :param first: first atom of each pair, rising, ``(P,)``; each pair occurs in both directions
        :param second: second atom, ``(P,)``
        :param vectors: from the first to the second, in the model's unit of distance, ``(P, 3)``
        :return: outputs of the network ``(A,)`` and the gradient of their sum by the vectors ``(P, 3)``
        :raises OutOfMemory: if TensorFlow could not allocate what it needs
        """
        n_atoms, n_pairs = len(numbers), len(first)
        wanted = [self._energies, *([self._gradient] if gradient and self._gradient is not None else [])]
        energies, *slopes = self._run(wanted, self._feed(numbers, first, second, vectors))
        if not gradient:
            return energies[:n_atoms], None
        return energies[:n_atoms], slopes[0][:n_pairs] if slopes else np.zeros((n_pairs, 3), 'f4')

    def bends(
        self, numbers: IntArray, first: IntArray, second: IntArray, vectors: FloatArray, ways: Iterable[FloatArray]
    ) -> Iterator[SingleArray]:
        """Yield how the gradient of :meth:`run` changes along each of several ways, ``(P, 3)`` each.

        :raises OutOfMemory: if TensorFlow could not allocate what it needs
        """
        self._build_bend()
        feed = self._feed(numbers, first, second, vectors)
        for way in ways:
            if self._bend is None:
                yield np.zeros((len(first), 3), 'f4')
                continue
            padded = np.zeros((len(feed[self._vectors]), 3), 'f4')
            padded[: len(way)] = way
            yield self._run([self._bend], {**feed, self._way: padded})[0][: len(first)]

    def _build_bend(self) -> None:
        """Add the second derivatives to the graph, which most jobs never need."""
        if self._bend is not None or self._gradient is None:
            return
        with self._session.graph.as_default():
            along = self._tf.reduce_sum(self._gradient * self._way)
            self._bend = self._tf.convert_to_tensor(self._tf.gradients(along, self._vectors)[0])

    def _feed(
        self, numbers: IntArray, first: IntArray, second: IntArray, vectors: FloatArray
    ) -> dict[Any, npt.NDArray[Any]]:
        """Return what goes into the graph; the first rows are those given."""
        pairs = np.stack([first, second], axis=1)
        n_atoms = len(numbers)
        if self._dummy:
            step = np.array([[_DUMMY_DISTANCE * self._model.cutoff, 0.0, 0.0]])
            pairs = np.concatenate([pairs, [[n_atoms, n_atoms + 1], [n_atoms + 1, n_atoms]]])
            vectors = np.concatenate([vectors, step, -step])
            numbers = np.concatenate([numbers, numbers[:1], numbers[:1]])
        self._check_memory(pairs[:, 0])
        return {self._elements: numbers, self._pairs: pairs, self._vectors: vectors}

    def _run(self, wanted: list[Any], feed: dict[Any, npt.NDArray[Any]]) -> list[SingleArray]:
        """Run the graph.

        :raises OutOfMemory: if TensorFlow could not allocate what it needs
        """
        try:
            results: list[SingleArray] = self._session.run(wanted, feed)
        except (self._tf.errors.ResourceExhaustedError, MemoryError):
            raise OutOfMemory('TensorFlow could not allocate what it needs') from None
        except self._tf.errors.InternalError as exception:  # of a GPU
            if not any(text in str(exception) for text in _MEMORY_TEXTS):
                raise
            raise OutOfMemory('TensorFlow could not allocate what it needs') from None
        return results


def _bytes_of_a_row(graph: Any) -> int:
    """Return the bytes of one row of all tensors of a graph whose first dimension depends on the input."""
    total = 0
    for operation in graph.get_operations():
        for tensor in operation.outputs if operation.type not in _VIEWS else ():
            if tensor.shape.rank and tensor.shape[0] is None:
                width = [size or 1 for size in tensor.shape.as_list()[1:]]
                total += int(np.prod(width)) * tensor.dtype.size
    return total


def _memory_left() -> int | None:
    """Return the bytes that may still be taken: what the kernel offers, within the limit of the process."""
    candidates = [available_memory()]
    limit, statm = resource.getrlimit(resource.RLIMIT_DATA)[0], Path('/proc/self/statm')
    if limit != resource.RLIM_INFINITY and statm.exists():
        candidates.append(max(limit - int(statm.read_text().split()[5]) * resource.getpagesize(), 0))
    return min((value for value in candidates if value is not None), default=None)
