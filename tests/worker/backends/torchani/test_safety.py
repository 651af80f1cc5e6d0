"""The lists of what a model file may hold: what models need is on them, and every way around them is closed."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.backends.torchani.safety import (
    ALLOWED_CLASSES,
    OPERATORS,
    allowed_classes,
    forbidden_operators,
    foreign_globals,
    foreign_script_globals,
    odd_modules,
)
from aiida_mlpotential.worker.torchfile import read_torch_file

FILES = ('custom_full_ani.pt', 'custom_sequential_idx.pt', 'custom_torchscript.pt')
#: Operators on texts themselves: none looks further than the text.
OF_TEXTS = frozenset(
    {'__contains__', '__getitem__', 'add', 'device', 'eq', 'format', 'ge', 'get', 'gt', 'index', 'keys', 'le', 'len'}
    | {'lt', 'ne', 'pop', 'slice', 'split'}
)
#: What torch writes for a small module.
GOOD = """class Model(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
  training : bool
  __annotations__["0"] = __torch__.torch.nn.modules.linear.Linear
  def forward(self: __torch__.Model,
    given: Tuple[Tensor, Tensor]) -> Tensor:
    _0 = __torch__.helper
    species, positions, = given
    if torch.__is__(positions, None):
      ops.prim.RaiseException("AssertionError: ")
    else:
      pass
    first = getattr(self, "0")
    weight = self.weight
    x = torch.mul(positions, weight)
    return torch.sum((first).forward(_0(x, ), ), [1, 2])
def helper(x: Tensor) -> Tensor:
  return torch.add(x, CONSTANTS.c0, alpha=1)
"""
LINEAR = """class Linear(Module):
  weight : Tensor
  def forward(self: __torch__.torch.nn.modules.linear.Linear,
    input: Tensor) -> Tensor:
    return torch.linear(input, self.weight, None)
"""


def _operators() -> set[str]:
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    return {schema.name.partition('::')[2] for schema in torch._C._jit_get_all_schemas()}


def test_what_models_need_is_on_the_lists(custom):
    for name in FILES:
        file = read_torch_file(custom / name)
        if file.kind == 'torchscript':
            assert forbidden_operators(file.code) == []
            assert forbidden_operators(file.code, _operators()) == []
        else:
            assert foreign_globals(file.globals) == []
    assert forbidden_operators({'model.py': GOOD, 'linear.py': LINEAR}, _operators()) == []


def test_only_plain_tensors_and_own_classes_are_in_a_script(custom):
    good = {'__torch__.nets.Net', '__torch__.torch.nn.modules.linear.Linear', 'torch.FloatStorage', 'torch.device'}
    good |= set(read_torch_file(custom / 'custom_torchscript.pt').globals)
    assert foreign_script_globals(good) == []
    evil = ['__torch__.torch.classes.ns.Name', 'torch._utils._rebuild_qtensor', 'torch._utils._rebuild_sparse_tensor']
    assert foreign_script_globals({*good, *evil}) == evil


@pytest.mark.parametrize(
    'name', ['os.system', 'builtins.eval', 'builtins.getattr', 'torch.load', 'torchani.models.ANI2x', 'torch.hub.load']
)
def test_other_names_are_foreign(name):
    assert foreign_globals([name, 'torchani.arch.ANI', 'builtins.set']) == [name]


def test_no_class_of_the_list_opens_a_file_that_it_is_told_to(tmp_path):
    """Whatever arguments a constructor is given: nothing is written, and no alias stands for something else."""
    pytest.importorskip('torchani', reason='the torchani extra is not installed')
    classes = allowed_classes()
    assert [f'{cls.__module__}.{cls.__qualname__}' for cls in classes] == list(ALLOWED_CLASSES)
    target = tmp_path / 'file'
    target.write_bytes(b'content')
    for cls in classes:
        for arguments in [(str(target),), (str(target), str(target)), (str(target), 'w', 1.0)]:
            try:
                cls(*arguments)
            except Exception as exception:
                assert 'content' not in str(exception)
    assert [path.name for path in tmp_path.iterdir()] == ['file']
    assert target.read_bytes() == b'content'


@pytest.mark.parametrize(
    ('line', 'named'),
    [
        ('x = torch.from_file("/etc/passwd", True, 10)', 'torch.from_file'),
        ('x = torch.save(1, "/tmp/x")', 'torch.save'),
        ('x = "/etc/passwd".from_file(True, 10)', '.from_file'),
        ('f = ("/etc/passwd").from_file', '.from_file'),
        ('x = getattr("/etc/passwd", "from_file")(True, 10)', 'from_file'),
        ('x = getattr("/etc/passwd", name)(True, 10)', 'getattr'),
        ('f = torch.from_file', 'torch.from_file'),
        ('t = torch\n    x = t.from_file("a", True, 10)', 'torch'),
        ('torch = positions\n    x = torch.from_file("a")', 'torch'),
        ('x = torch.as_strided(positions, [10], [1], 100000)', 'torch.as_strided'),
        ('x = positions.set_(weight)', '.set_'),
        ('x = ops.mylib.run(positions)', 'ops.mylib.run'),
        ('x = ops.aten.from_file("a")', 'ops.aten.from_file'),
        ('o = ops.prim\n    x = o.PythonOp(1)', 'ops.prim'),
        ('x = __torch__.torch.classes.cuaev.CuaevComputer(1)', 'CuaevComputer'),
        ('n = __torch__.torch.classes\n    x = n.foo.Bar()', '__torch__.torch.classes'),
        ('x = fork(self.forward, given)', 'fork'),
        ('fork = 1\n    x = fork(self.forward)', 'fork'),
        ('CONSTANTS = positions', 'CONSTANTS'),
        ('x = open("a")', 'open'),
        ('x = torch.add(positions, 1)  # type: (Tensor) -> Tensor', 'comment'),
        ('x = f"{torch}"', 'unusual string'),
        ("x = r'a'", 'unusual string'),
        ('x = """a"""', 'unusual string'),
        (b'x = "\\u00e4"'.decode('unicode_escape'), 'unusual characters'),
        ('import os', 'import'),
        ('x = (lambda y: y)(1)', 'lambda'),
        ('x = (', 'cannot be read'),
    ],
)
def test_every_way_around_is_closed(line, named):
    source = GOOD.replace('    first = ', f'    {line}\n    first = ')
    for operators in ((), _operators()):
        found = forbidden_operators({'model.py': source, 'linear.py': LINEAR}, operators)
        assert any(named in item for item in found), found


def test_a_field_cannot_make_an_operator_known():
    """A value without such a field would have the operator called instead."""
    source = GOOD.replace('  training : bool', '  from_file : bool\n  _cufft_set_plan_cache_max_size : bool')
    assert forbidden_operators({'model.py': source, 'linear.py': LINEAR}) == ['from_file']
    found = forbidden_operators({'model.py': source, 'linear.py': LINEAR}, _operators())
    assert found == ['_cufft_set_plan_cache_max_size', 'from_file']


def test_operators_on_the_list_know_no_files():
    """A list is only as good as what is on it: none takes a text but as a mode, a stream, or a storage."""
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition('::')
        if space == 'aten' and name in OPERATORS:
            for argument in schema.arguments:
                kind = str(argument.type).removeprefix('Optional[').removesuffix(']')
                assert kind not in ('Storage', 'Stream', 'AnyClassType'), schema
                modes = ('rounding_mode', 'reduce', 'indexing', 'ord', 'side', 'approximate', 'equation')
                assert kind != 'str' or argument.name in modes or name in OF_TEXTS, schema


def test_hooks_and_hidden_methods_are_seen(random_model):
    torch = pytest.importorskip('torch')
    assert odd_modules(random_model(2)) == []
    model = random_model(1)
    model.energy_shifter.register_forward_hook(print)
    assert odd_modules(model) == ['energy_shifter has _forward_hooks']
    model = random_model(1)
    model.energy_shifter.__dict__['forward'] = torch.nn.GELU
    assert odd_modules(model) == ['energy_shifter has its own forward']
    model = random_model(1)
    model.__dict__['symbols'] = ('H',)
    assert odd_modules(model) == ['the model hides the method symbols']
    model.neighborlist.add_module('more', torch.nn.Conv1d(1, 1, 1))
    assert any('Conv1d' in text for text in odd_modules(model))
