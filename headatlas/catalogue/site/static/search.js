// Finds documents by words, best first, also when a word is misspelt or only begun. The ranking is that of
// `headatlas papers search`: BM25 over weighted fields; an unknown word stands for the words it begins or nearly is.
headatlas.words = (text) => {
  const plain = text.normalize("NFKD").toLowerCase().replace(/\p{M}/gu, "").replace(/['’]s\b/g, " ");
  return (plain.match(/\p{L}+|\d+/gu) || []).map((word) =>
    word.length > 3 && word.endsWith("s") && !/(ss|us|is)$/.test(word) ? word.slice(0, -1) : word,
  );
};

// Letters that have to be changed, added, taken out or swapped with their neighbour; more than `most` count as many.
headatlas.distance = (a, b, most) => {
  if (Math.abs(a.length - b.length) > most) return most + 1;
  let before = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j], before[j - 2] + 1);
    }
    [before, last] = [last, row];
  }
  return last[b.length];
};

headatlas.createSearch = (documents, weights) => {
  "use strict";
  const { words, distance } = headatlas;
  const SATURATION = 1.2;
  const LENGTH = 0.5;
  const STOP = new Set("a an and are as at by do for from how in is it of on or than that the this to what when which with".split(" "));
  const fields = Object.keys(weights);
  const holders = new Map(); // word -> how many documents have it
  const read = documents.map((document) => {
    const counts = {};
    const own = new Set();
    for (const field of fields) {
      counts[field] = new Map();
      for (const word of (document[field] || []).flatMap(words)) {
        counts[field].set(word, (counts[field].get(word) || 0) + 1);
        own.add(word);
      }
    }
    for (const word of own) holders.set(word, (holders.get(word) || 0) + 1);
    const lengths = {};
    for (const field of fields) lengths[field] = [...counts[field].values()].reduce((sum, n) => sum + n, 0);
    return { document, counts, lengths };
  });
  const means = {};
  for (const field of fields) {
    means[field] = Math.max(1, read.reduce((sum, { lengths }) => sum + lengths[field], 0) / Math.max(1, read.length));
  }

  // The known words that a typed word may mean, each with how surely.
  function meanings(word) {
    const found = new Map();
    const letters = !/\d/.test(word);
    if (letters && word.length >= 3) {
      for (const other of holders.keys()) {
        if (other.startsWith(word)) found.set(other, (0.8 * word.length) / other.length);
      }
    }
    if (holders.has(word)) return found.set(word, 1);
    if (letters && word.length >= 4) {
      for (const other of holders.keys()) {
        const longest = Math.max(word.length, other.length);
        const most = Math.floor(0.3 * longest);
        const likeness = 1 - distance(word, other, most) / longest;
        if (likeness >= 0.7) found.set(other, Math.max(found.get(other) || 0, 0.8 * likeness ** 2));
      }
    }
    return found;
  }

  function worth({ counts, lengths }, word) {
    let often = 0;
    for (const field of fields) {
      const n = counts[field].get(word);
      if (n) often += (weights[field] * n) / (1 - LENGTH + (LENGTH * lengths[field]) / means[field]);
    }
    const have = holders.get(word);
    return (Math.log(1 + (read.length - have + 0.5) / (have + 0.5)) * often) / (SATURATION + often);
  }

  // scores: document -> how well it fits, for those with all the words, or with any where none has all;
  // known: the words looked for; unknown: typed words that mean nothing; corrected: [typed, its nearest word].
  return (query) => {
    const typed = [...new Set(words(query))];
    const wanted = typed.some((word) => !STOP.has(word)) ? typed.filter((word) => !STOP.has(word)) : typed;
    const near = wanted.map((word) => [word, meanings(word)]);
    const hits = [];
    for (const entry of read) {
      const parts = near.map(([, found]) => Math.max(0, ...[...found].map(([word, share]) => share * worth(entry, word))));
      const had = parts.filter((part) => part > 0).length;
      if (had) hits.push([entry.document, parts.reduce((sum, part) => sum + part, 0) * (had / parts.length) ** 2, had]);
    }
    const all = hits.filter(([, , had]) => had === wanted.length);
    const best = ([, found]) => [...found].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
    return {
      scores: new Map((all.length ? all : hits).map(([document, score]) => [document, score])),
      known: new Set(near.flatMap(([, found]) => [...found.keys()])),
      unknown: near.filter(([, found]) => !found.size).map(([word]) => word),
      corrected: near.filter(([word, found]) => found.size && !found.has(word) && !best([word, found]).startsWith(word)).map((pair) => [pair[0], best(pair)]),
      empty: !wanted.length,
    };
  };
};
