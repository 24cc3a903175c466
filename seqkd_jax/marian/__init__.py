"""Hugging Face's Marian directories to checkpoints and back: opus-mt models as teachers, ours in other toolkits.

Both directions read the tables of layout.py. Where the formats differ:
  ids        ours begin with PAD, UNK, BOS, EOS; an exported directory has opus-mt's: </s>, <unk>, ..., <pad>
  start      Marian's decoder begins with <pad>: that row is our BOS. CTranslate2 takes it to be zero: one that is not
             goes into position 0 of the decoder's table, which transformers and CTranslate2 both read
  PAD, BOS   count in our softmax but are never produced: they become entries of their own, unless their bias is NEVER
  positions  the tables are in the file where they are not the sinusoids that transformers makes; its save_pretrained
             leaves tables out, so a model that it loads from such a file must be saved by other means

safetensors only; a pickle is never read. An option that the other side lacks is refused by its name.
"""

from seqkd_jax.marian.export import export_marian
from seqkd_jax.marian.load import import_marian

__all__ = ["export_marian", "import_marian"]
