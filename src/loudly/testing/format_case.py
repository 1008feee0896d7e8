"""What every model format owes: run these against yours.

Fixtures: `form` gives the format, `fitted` an estimator it accepts, fitted on (n, 4) float64 and a 0/1 label.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly.errors import ModelError
from loudly.store.travel import opened, pack, work_on

ROWS = np.random.default_rng(7).normal(size=(50, 4))


class FormatCase:
    """Conformance of a model format."""

    def test_it_has_a_name_and_says_whether_loading_could_run_code(self, form: Any) -> None:
        assert form.name
        assert form.executes_code in (True, False)

    def test_it_accepts_what_it_can_store_and_nothing_else(self, form: Any, fitted: Any) -> None:
        assert form.accepts(fitted)
        assert not form.accepts(object())

    def test_the_same_estimator_gives_the_same_bytes(self, form: Any, fitted: Any) -> None:
        data = form.dump(fitted)
        assert isinstance(data, bytes)
        assert form.dump(fitted) == data

    def test_a_loaded_model_answers_as_float64_one_for_each_row_and_always_the_same(self, form: Any, fitted: Any) -> None:
        data = form.dump(fitted)
        model, rows = form.load(data), ROWS.copy()
        answers = model.predict(rows)
        assert answers.shape == (50,)
        assert answers.dtype == np.float64
        assert np.isfinite(answers).all()
        assert np.array_equal(rows, ROWS), "the rows are left as they were"
        assert np.array_equal(model.predict(rows), answers)
        assert np.array_equal(form.load(data).predict(rows), answers)
        assert np.allclose(model.predict(rows[:1]), answers[:1], rtol=1e-6)

    def test_what_is_restored_is_stored_again_and_answers_the_same(self, form: Any, fitted: Any) -> None:
        again = form.dump(form.restore(form.dump(fitted)))
        assert np.array_equal(form.load(again).predict(ROWS), form.load(form.dump(fitted)).predict(ROWS))

    def test_what_is_fitted_in_a_worker_and_what_a_fit_there_goes_on_from_travel(self, form: Any, fitted: Any) -> None:
        data = form.dump(fitted)
        for estimator in (fitted, form.restore(data)):
            (back,) = opened(work_on(pack(list), pack([estimator])))
            assert form.accepts(back)
            assert np.array_equal(form.load(form.dump(back)).predict(ROWS), form.load(data).predict(ROWS))

    def test_a_row_with_nan_is_answered_or_refused_and_changes_no_other(self, form: Any, fitted: Any) -> None:
        model, holed = form.load(form.dump(fitted)), ROWS.copy()
        holed[3, 0] = np.nan
        try:
            answers = model.predict(holed)
        except Exception:  # noqa: BLE001 - an estimator may refuse in its own words; the router then falls back
            return
        rest = np.arange(50) != 3
        assert answers.shape == (50,)
        assert np.allclose(answers[rest], model.predict(ROWS)[rest], rtol=1e-6)

    def test_bytes_that_are_no_model_are_a_model_error(self, form: Any) -> None:
        for data in (b"", b"nonsense", b"PK\x03\x04 nonsense"):
            with pytest.raises(ModelError):
                form.restore(data)
