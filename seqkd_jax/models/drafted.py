"""A translator with a cheaper one that drafts for it: what `search.speculative` decodes, and otherwise the first alone.

Params are those of both. The draft may be of any kind and reads the same vocabularies.
"""

import functools

import jax

from seqkd_jax.types import Translator, UserError


@functools.cache
def drafted(verifier: Translator, draft: Translator) -> Translator:
    """The Translator of both; equal pairs give the same one. UserError: the first cannot verify tokens at once."""
    if not verifier.parallel:
        raise UserError(
            "--draft (draft= in Python): only a Transformer can verify the tokens of a draft in one pass, an LSTM "
            "reads them one by one; omit it, and use --decoder greedy"
        )

    def alone(function):
        return lambda params, *arguments: function(params[0], *arguments)

    own = {name: alone(getattr(verifier, name)) for name in ("features", "head", "start", "step")}
    return verifier._replace(
        **own,
        init=lambda key: tuple(
            one.init(part) for one, part in zip((verifier, draft), jax.random.split(key), strict=True)
        ),
        attention=verifier.attention and alone(verifier.attention),
        prepare=lambda params: (verifier.prepare(params[0]), draft.prepare(params[1])),
        draft=draft,
    )
