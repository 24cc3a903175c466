"""Import and export of Hugging Face's Marian directories: opus-mt models as teachers, our models in other toolkits.

Both directions use the tables of layout.py. Differences between the formats:
  ids        ours begin with PAD, UNK, BOS, EOS; an exported directory has opus-mt's order </s>, <unk>, ..., <pad>
  start      Marian's decoder starts with <pad>, which corresponds to our BOS. CTranslate2 assumes that its embedding is
             zero; any other value is added to position 0 of the decoder's position table, which both toolkits read
  PAD, BOS   take part in our softmax but are never produced; they become separate entries, unless their bias is NEVER
  positions  the file contains the position tables if they are not the sinusoids that transformers computes.
             save_pretrained of transformers leaves tables out, so such a model must be saved in another way
  padding    rows of their embedding behind the last id have no text; ours has no such rows
  added      tokens that were added after training are entries, as others, and are found whole in a text

Only safetensors are read, never pickles. An option without an equivalent is an error that names it.
"""

from seqkd_jax.marian.export import export_marian
from seqkd_jax.marian.load import import_marian

__all__ = ["export_marian", "import_marian"]
