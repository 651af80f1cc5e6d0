"""What a TorchANI model file may hold if nobody trusts it: fixed lists of classes and of TorchScript operators.

A file of ``torch.save`` is a pickle. torch's restricted unpickler makes objects of the classes listed here and of
nothing else, and what it made is looked over once more: no hooks, no attribute that takes the place of a method.

A TorchScript file is a program. Its sources may use the operators listed here and no others: arithmetic, indexing and
shapes, none of which knows files, processes or the network. ``torch.save``, ``torch.from_file`` (which maps any file
into memory, writable when shared), ``as_strided`` and ``set_`` (which look beside a tensor), and operators of other
libraries are absent, as is everything that a later torch may bring.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What torch's restricted unpickler knows itself of that a torchani model needs: tensors and plain containers.
_TORCH_OWN = frozenset(
    {
        'collections.OrderedDict',
        'builtins.set',
        '__builtin__.set',
        'torch.Size',
        'torch.device',
        'torch._utils._rebuild_parameter',
        'torch._utils._rebuild_tensor_v2',
        *(
            f'torch.{kind}Storage'
            for kind in ('Float', 'Double', 'Half', 'Long', 'Int', 'Short', 'Byte', 'Char', 'Bool')
        ),
        *(f'torch.{kind}' for kind in ('float32', 'float64', 'float16', 'int64', 'int32', 'uint8', 'bool')),
    }
)

#: Classes that the unpickler may make. Their constructors, which a hostile pickle may call with arguments of its
#: choice, only store them, or make tensors of them; none opens a file by a name that it is given (the one of
#: TwoBodyDispersionD3 reads a table inside torchani), imports, evaluates text, or starts anything. Absent on purpose:
#: base classes made to be derived from, the experimental ``_infer`` networks that need torchani's compiled operators,
#: and ``ANIq``, whose charges this backend does not give.
ALLOWED_CLASSES: tuple[str, ...] = (
    # activations: no state, or a number
    'torch.nn.modules.activation.CELU',
    'torch.nn.modules.activation.ELU',
    'torch.nn.modules.activation.GELU',
    'torch.nn.modules.activation.ReLU',
    'torch.nn.modules.activation.SiLU',
    'torch.nn.modules.activation.Softplus',
    'torch.nn.modules.activation.Tanh',
    # containers of modules, and the two kinds of layers
    'torch.nn.modules.container.ModuleDict',
    'torch.nn.modules.container.ModuleList',
    'torch.nn.modules.linear.Linear',
    'torch.nn.modules.sparse.Embedding',
    # the descriptor
    'torchani.aev._computer.AEVComputer',
    'torchani.aev._terms.ANIAngular',
    'torchani.aev._terms.ANIRadial',
    'torchani.cutoffs.CutoffBiweight',
    'torchani.cutoffs.CutoffCosine',
    'torchani.cutoffs.CutoffDummy',
    'torchani.cutoffs.CutoffSmooth',
    'torchani.cutoffs.CutoffTriweight',
    'torchani.cutoffs._AltCutoffSmooth',
    'torchani.neighbors.AdaptiveList',
    'torchani.neighbors.AllPairs',
    'torchani.neighbors.CellList',
    # networks and their containers
    'torchani.nn._containers.ANINetworks',
    'torchani.nn._containers.ANISharedNetworks',
    'torchani.nn._containers.Ensemble',
    'torchani.nn._containers.SingleNN',
    'torchani.nn._containers.SpeciesConverter',
    'torchani.nn._core.AtomicEmbedding',
    'torchani.nn._core.AtomicNetwork',
    'torchani.nn._core.AtomicOneHot',
    'torchani.nn._core.TightCELU',
    'torchani.nn._core._Embedding',
    'torchani.nn._internal.ANIModel',
    'torchani.nn._internal.Sequential',
    # whole models, and the pair potentials that may be in them: closed formulas over tensors
    'torchani.arch.ANI',
    'torchani.potentials.core.Potential',
    'torchani.potentials.dftd3.BeckeJohnsonDamp',
    'torchani.potentials.dftd3.TwoBodyDispersionD3',
    'torchani.potentials.fixed_coulomb.FixedCoulomb',
    'torchani.potentials.fixed_coulomb.FixedMNOK',
    'torchani.potentials.lj.DispersionLJ',
    'torchani.potentials.lj.LennardJones',
    'torchani.potentials.lj.RepulsionLJ',
    'torchani.potentials.nnp.NNPotential',
    'torchani.potentials.xtb.RepulsionXTB',
    'torchani.potentials.zbl.RepulsionZBL',
    'torchani.sae.SelfEnergy',
    'torchani.utils.EnergyShifter',
)

#: Operators of ``torch.<name>`` that a TorchScript may use: they compute on what they are given, with their bounds
#: checked, and reach nothing else.
OPERATORS = _words(
    """
    __and__ __contains__ __getitem__ __is__ __isnot__ __not__ __or__ abs abs_ acos add add_ addmm all allclose amax amin
    any append arange argmax argmin argsort asin atan atan2 atleast_1d baddbmm bincount bitwise_and bitwise_not
    bitwise_or bmm broadcast_tensors broadcast_to bucketize cartesian_prod cat ceil celu chunk clamp clamp_ clamp_max
    clamp_min clone combinations concat contiguous copy_ cos cosh cosine_similarity cross cumprod cumsum detach device
    diag diagonal diff dim div div_ divide dot dtype einsum elu embedding empty empty_like eq erf erfc exp exp_
    expand expand_as expm1 extend eye fill_ flatten flip float floor floor_divide floordiv fmod format frac full
    full_like gather ge gelu get gt hardtanh hypot index index_add index_add_ index_copy index_put index_put_
    index_select inf int inverse is_floating_point isfinite isinf isnan item items keys kthvalue layer_norm le
    leaky_relu len lerp linalg_cross linalg_det linalg_inv linalg_norm linalg_solve linalg_vector_norm linear linspace
    log log10 log1p log2 log_softmax logical_and logical_not logical_or logsigmoid logsumexp lt masked_fill masked_fill_
    masked_scatter masked_select matmul max maximum mean meshgrid min minimum mish mm movedim mul mul_ multiply mv nan
    nan_to_num narrow ndimension ne neg neg_ new_empty new_full new_ones new_zeros nonzero nonzero_numpy norm numel
    one_hot ones ones_like outer pairwise_distance permute pi pop pow prod ravel reciprocal relu relu_ remainder repeat
    repeat_interleave reshape reverse roll round rsqrt rsub scatter scatter_add scatter_add_ searchsorted select
    selu sigmoid sign silu sin sinh size slice softmax softplus sort split split_with_sizes sqrt square squeeze stack
    std sub sub_ subtract sum swapaxes t take tan tanh tensor tensordot threshold tile to topk transpose tril
    tril_indices triu triu_indices trunc type_as unbind unfold unique_consecutive unique_dim unsqueeze values var view
    view_as where zero_ zeros zeros_like zeta _unique2 indices dropout prelu batch_norm bilinear distance
    """
)
#: Operators of ``ops.<namespace>.<name>``: questions about tensors, and raising an exception.
_SPECIAL_OPERATORS = frozenset(
    f'ops.prim.{name}'
    for name in _words(
        'NumToTensor RaiseException abs data device dtype is_cuda layout max min requires_grad tolist type '
        'unchecked_cast unchecked_unwrap_optional'
    )
)
#: Names that TorchScript's compiler knows without a definition. Absent: ``fork``, ``awaitable``, ``open``.
_BUILTINS = _words(
    'annotate unchecked_cast uninitialized int float bool str range len print min max abs inf nan Tensor Tuple List '
    'Dict Optional Union Any NoneType NamedTuple Module number Device Function Enum AnyEnum Final'
)
#: Names that are judged where they are used.
_JUDGED = frozenset({'getattr', '__annotations__', '__parameters__', '__buffers__'})
#: Names that the sources may not give a meaning of their own to, because the compiler may have another in mind.
_RESERVED = frozenset({'torch', 'ops', '__torch__', 'CONSTANTS', 'fork', 'awaitable', 'open', 'getattr'})
#: Known to do harm, so that a file is refused where no torch is there to list all operators.
_HARMFUL = _words(
    'from_file save load set_ set_data resize resize_ resize_as_ as_strided as_strided_ empty_strided classes '
    'record_stream pin_memory warn hash'
)
#: What the pickles of a TorchScript may name.
_SCRIPT_GLOBALS = re.compile(
    r'__torch__\.(?!torch\.classes\.).*|torch\._utils\._rebuild_tensor_v2|torch\.[A-Za-z0-9]+Storage|torch\.device'
    r'|collections\.OrderedDict|torch\.jit\._pickle\.(restore_type_tag|build_(int|bool|double|tensor)list)'
)
#: The beginning of formatted strings, which Python has as tokens of their own since 3.12 and 3.14.
_NESTED_STRINGS = {getattr(tokenize, name) for name in ('FSTRING_START', 'TSTRING_START') if hasattr(tokenize, name)}
#: The beginning of a string with a prefix, or over several lines.
_ODD_STRING = re.compile('[^\'"]|\'\'\'|"""')


def foreign_globals(names: Iterable[str]) -> list[str]:
    """Return the classes and functions of a pickle that are on no list: it cannot be loaded without trust."""
    return sorted(set(names) - _TORCH_OWN - set(ALLOWED_CLASSES))


def foreign_script_globals(names: Iterable[str]) -> list[str]:
    """Return what the pickles of a TorchScript name beside the classes in its sources and plain tensors.

    Absent are the classes of compiled libraries, and sparse and quantized tensors, whose indices nobody checks.
    """
    return sorted(name for name in names if not _SCRIPT_GLOBALS.fullmatch(name))


def allowed_classes() -> list[type]:
    """Return the classes of the list that the installed torch and torchani have."""
    import importlib

    found: list[type] = []
    for path in ALLOWED_CLASSES:
        module, _, name = path.rpartition('.')
        try:
            cls = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):  # another version of torchani: its files name other classes anyway
            continue
        if f'{cls.__module__}.{cls.__qualname__}' == path:  # no alias of something else
            found.append(cls)
    return found


def odd_modules(model: Any) -> list[str]:
    """Return what in a loaded module tree is not just a listed class with its data.

    A pickle may set any attribute: hooks that torch calls, or one called ``forward`` that hides the class's method.
    """
    classes = set(allowed_classes())
    found = []
    for name, module in model.named_modules():
        where = name or 'the model'
        if type(module) not in classes:
            found.append(f'{where} is a {type(module).__name__}')
        for key, value in vars(module).items():
            if key.endswith('_hooks') and value:
                found.append(f'{where} has {key}')
            elif callable(value) or (key == '_compiled_call_impl' and value is not None):
                found.append(f'{where} has its own {key}')
            elif isinstance(getattr(type(module), key, None), property) or callable(getattr(type(module), key, None)):
                found.append(f'{where} hides the method {key}')
    return found


def forbidden_operators(sources: Mapping[str, str], all_operators: Iterable[str] = ()) -> list[str]:
    """Return what a TorchScript uses that is not on the lists; empty for one that only computes.

    The sources are read as Python, of which TorchScript's serialised form is a part; they are not run.

    :param sources: from the archive, by name
    :param all_operators: every operator of the installed torch: TorchScript takes ``x.name(...)`` for
        ``torch.name(x, ...)`` where ``x`` has no ``name`` of its own, so no field may share
        its name with one that is on no list
    """
    trees = {}
    for name, text in sources.items():
        try:
            trees[name] = ast.parse(text)
            odd = sorted(set(_odd_tokens(text)))
        except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
            return [f'{name}, which cannot be read']
        if odd:
            return [f'{name}, with {odd[0]}']
    harmful = (_HARMFUL | set(all_operators)) - OPERATORS
    # the names of submodules and fields are free, unless they are those of operators
    declared = {name for tree in trees.values() for name in _declared(tree)}
    found: set[str] = {name for name in declared if name in harmful}
    for tree in trees.values():
        found.update(_forbidden(tree, declared - harmful))
    return sorted(found)


def _odd_tokens(text: str) -> Iterator[str]:
    """Yield what Python and TorchScript may read differently, so that code could hide in it; torch writes none."""
    if not text.isascii() or '\\\n' in text or '\f' in text or '\r' in text:
        yield 'unusual characters'
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield 'a comment'
        elif token.type in _NESTED_STRINGS or (token.type == tokenize.STRING and _ODD_STRING.match(token.string)):
            yield 'an unusual string'


def _declared(tree: ast.Module) -> Iterator[str]:
    """Yield the names of classes, functions, fields and submodules of a source."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id == '__annotations__'
            and isinstance(node.slice, ast.Constant)
        ):
            yield str(node.slice.value)


def _forbidden(tree: ast.Module, declared: set[str]) -> Iterator[str]:
    """Yield what one source uses that it may not."""
    local = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    known = (local | declared | _BUILTINS) - _RESERVED
    inside: set[int] = set()  # parts of chains that were judged as a whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inside:
            chain = _chain(node, inside)
            if not _may_use(chain, declared):
                yield '.'.join(chain)
        elif isinstance(node, ast.Name) and id(node) not in inside:
            if node.id not in known | _JUDGED:
                yield node.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'getattr':
            argument = node.args[1] if len(node.args) == 2 else None
            name = argument.value if isinstance(argument, ast.Constant) else None
            if not isinstance(name, str) or not _may_use(['', name], declared):
                yield f'getattr of {name!r}'
        elif isinstance(node, (ast.Import, ast.ImportFrom, ast.Lambda, ast.Global, ast.With, ast.Await, ast.Delete)):
            yield type(node).__name__.lower()


def _chain(node: ast.Attribute, inside: set[int]) -> list[str]:
    """Return the names of ``a.b.c``, with an empty first one where it begins with an expression."""
    names: list[str] = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute):
        inside.add(id(current))
        names.append(current.attr)
        current = current.value
    if isinstance(current, ast.Name):
        if current.id in ('torch', 'ops', '__torch__', 'CONSTANTS'):
            inside.add(id(current))
            return [current.id, *reversed(names)]
        return ['', *reversed(names)]
    return ['', *reversed(names)]


def _may_use(chain: list[str], declared: set[str]) -> bool:
    root, names = chain[0], chain[1:]
    if root == 'torch':
        return len(names) == 1 and names[0] in OPERATORS
    if root == 'ops':
        return '.'.join(chain) in _SPECIAL_OPERATORS
    if root == '__torch__':
        # its last part is defined in the file; torch.classes are those of compiled libraries
        return names[-1] in declared and names[:2] != ['torch', 'classes']
    if root == 'CONSTANTS':
        return len(names) == 1 and names[0].lstrip('c').isdigit()
    return all(name in declared or name in OPERATORS for name in names)
