// Finds documents by words, best first, also when a word is misspelt or only begun. The index and the ranking (BM25 over
// weighted fields) are MiniSearch's, which the build puts before this text; here is what a typed word may stand for.
headatlas.words = (text) => {
  const plain = text.normalize("NFKD").toLowerCase().replace(/\p{M}/gu, "").replace(/['’]s\b/g, " ");
  return (plain.match(/\p{L}+|\d+/gu) || []).map((word) =>
    word.length > 3 && word.endsWith("s") && !/(ss|us|is)$/.test(word) ? word.slice(0, -1) : word,
  );
};

headatlas.createSearch = (documents, weights) => {
  "use strict";
  const { words } = headatlas;
  const STOP = new Set("a an and are as at by do for from how in is it of on or than that the this to what when which with".split(" "));
  const [SHORTEST_START, SHORTEST_TYPO, LETTERS_A_TYPO] = [3, 4, 4];
  const order = new Map(documents.map((document, place) => [document, place]));
  const index = new MiniSearch({
    fields: Object.keys(weights),
    extractField: (document, field) => (field === "id" ? order.get(document) : (document[field] || []).join("\n")),
    tokenize: words,
    processTerm: (word) => word, // words() has done it
    searchOptions: { boost: weights },
  });
  index.addAll(documents);

  // The known words that a typed word may mean: itself and those it begins; where there are none, those it nearly is.
  function meaning(word) {
    const letters = !/\d/.test(word);
    const ways = [{ prefix: letters && word.length >= SHORTEST_START, fuzzy: 0 }];
    const most = letters && word.length >= SHORTEST_TYPO ? Math.ceil(word.length / LETTERS_A_TYPO) : 0;
    for (let typos = 1; typos <= most; typos++) ways.push({ prefix: false, fuzzy: typos });
    for (const way of ways) {
      const holders = new Map(); // known word -> how many documents have it
      for (const { terms } of index.search(word, way)) {
        for (const term of terms) holders.set(term, (holders.get(term) || 0) + 1);
      }
      if (holders.size) return { ...way, known: [...holders.keys()].sort((a, b) => holders.get(b) - holders.get(a)) };
    }
    return { prefix: false, fuzzy: 0, known: [] };
  }

  // scores: document -> how well it fits, for those with all the words, or with any where none has all;
  // known: the words looked for; unknown: typed words that mean nothing; corrected: [typed, the word it was read as].
  return (query) => {
    const typed = [...new Set(words(query))];
    const wanted = typed.some((word) => !STOP.has(word)) ? typed.filter((word) => !STOP.has(word)) : typed;
    const meant = new Map(wanted.map((word) => [word, meaning(word)]));
    const find = (combineWith) =>
      index.search(wanted.join(" "), {
        combineWith,
        prefix: (word) => meant.get(word).prefix,
        fuzzy: (word) => meant.get(word).fuzzy,
      });
    const all = find("AND");
    const hits = all.length ? all : find("OR");
    return {
      scores: new Map(hits.map(({ id, score }) => [documents[id], score])),
      known: new Set([...meant.values()].flatMap(({ known }) => known)),
      unknown: wanted.filter((word) => !meant.get(word).known.length),
      corrected: wanted.filter((word) => meant.get(word).fuzzy).map((word) => [word, meant.get(word).known[0]]),
      empty: !wanted.length,
    };
  };
};
