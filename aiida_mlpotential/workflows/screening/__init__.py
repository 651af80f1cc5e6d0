"""Screening: any number of structures against one or several models, in slices, many at once, nothing lost.

``WorkflowFactory('mlpotential.screening')`` takes ``structures``, ``models`` (by label) and ``code`` or ``codes``; its
other inputs have defaults, or come from a protocol by ``get_builder_from_protocol``. It returns ``results`` (by label),
``ranking``, ``summary``, and where they were asked for ``output_structures`` and ``selected_structures``. All of them
are declared in ``specification.py``.
"""
