"""A little WordNet in the files of the real one, as NLTK reads it (wndb(5WN), wninput(5WN))."""

from collections.abc import Mapping, Sequence
from pathlib import Path

_PARTS = ("adj", "adv", "noun", "verb")


def write(folder: Path, hypernyms: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Writes nouns below `folder`/corpora/wordnet, where NLTK finds them.

    Args:
      folder: what NLTK_DATA would name.
      hypernyms: words by the words below them; a word's own hypernyms come before it.

    Returns:
      Ids, such as "n00000042", by word.
    """
    corpus = folder / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    ids, data, index, senses = {}, "  1 a licence, which the real files begin with\n", [], []
    for word, above in hypernyms.items():
        offset = f"{len(data):08}"
        ids[word] = f"n{offset}"
        pointers = "".join(f"@ {ids[each][1:]} n 0000 " for each in above)
        data += f"{offset} 03 n 01 {word} 0 {len(above):03} {pointers}| what {word} means  \n"
        symbols = "1 @" if above else "0"
        index.append(f"{word} n 1 {symbols} 1 0 {offset}  \n")
        senses.append(f"{word}%1:03:00:: {offset} 1 0\n")
    files = {f"{kind}.{part}": "" for kind in ("data", "index") for part in _PARTS}
    files |= {f"{part}.exc": "" for part in _PARTS}
    files |= {"data.noun": data, "index.noun": "".join(sorted(index))}
    files["index.sense"] = "".join(sorted(senses))
    files["lexnames"] = "".join(f"{i:02} noun.{i} 1\n" for i in range(45))
    for name, text in files.items():
        (corpus / name).write_text(text)
    return ids


PETS = {
    "entity": (),
    "object": ("entity",),
    "animal": ("object",),
    "carnivore": ("animal",),
    "canine": ("carnivore",),
    "pet": ("object",),
    "dog": ("canine", "pet"),
    "wolf": ("canine",),
    "poodle": ("dog",),
    "toy": ("poodle",),
    "cat": ("carnivore",),
    "car": ("object",),
}
