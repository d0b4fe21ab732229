"""Repairs: a consuming weight makes up for the input channels it loses.

`function(weight [out, in], bias [out] | None, keep bool [in], statistics…) -> (weight [out, in], bias [out] | None)`;
the removed columns of what comes back are ignored. A repair registered with `adds_bias=True` returns a bias even where
there was none; every other one only changes a bias that exists.
"""
