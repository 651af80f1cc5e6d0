"""A package with a calculator that remembers how it was made and how often it computed; a test copies it."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes


def load(path, where='nowhere'):
    return ('loaded', path, where)


class Fake(Calculator):
    implemented_properties = ['energy', 'forces', 'stress', 'energies', 'charges']

    def __init__(self, weights=None, place=None, kind=None, scale=1.0, stale=False, needs_cell=False, memory=None):
        super().__init__()
        self.made_with = {'weights': weights, 'place': place, 'kind': kind}
        self.scale, self.stale, self.needs_cell, self.memory, self.count = scale, stale, needs_cell, memory, 0

    def check_state(self, atoms, tol=1e-15):
        return [] if self.stale and self.results else super().check_state(atoms, tol)

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.count += 1
        if self.needs_cell:
            np.linalg.inv(atoms.cell.array)
        if self.memory is not None and len(atoms) > self.memory:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        squares = self.scale * (atoms.positions**2).sum(axis=1)
        self.results = {'energy': squares.sum(), 'energies': squares, 'charges': 0.1 * atoms.numbers}
        if 'forces' in properties:
            self.results['forces'] = -2 * self.scale * atoms.positions
        if 'stress' in properties:
            self.results['stress'] = np.arange(6.0)

    def get_hessian(self, atoms):
        if atoms.pbc.any():
            raise NotImplementedError
        if self.memory is not None and len(atoms) > self.memory:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if 'H' in atoms.symbols:
            raise ValueError('no hydrogen')
        return 2 * self.scale * np.eye(3 * len(atoms)).reshape(3 * len(atoms), len(atoms), 3)
