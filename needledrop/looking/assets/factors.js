// The artists at both ends of each factor; some at first, more on demand.

const AT_ONCE = matchMedia("(min-width: 44rem)").matches ? 12 : 4;

function showFactors(wanted) {
  const list = at("factor-list");
  const ends = (title, artists) => {
    const part = document.createElement("div");
    part.append(element("h4", title));
    for (const [artist, mean, nSongs] of artists) {
      const button = element("button", "", { type: "button", class: "pick", title: `mean of ${nSongs} songs` });
      button.append(element("strong", artist), element("span", mean.toPrecision(2).replace("-", "−"), { dir: "ltr" }));
      button.addEventListener("click", () => wanted(artist));
      part.append(button);
    }
    return part;
  };
  const more = () => {
    const shown = list.childElementCount;
    data.factors.slice(shown, shown + AT_ONCE).forEach(([negative, positive], row) => {
      const factor = element("div", "", { class: "factor" });
      const both = element("div", "", { class: "ends" });
      both.append(ends("most negative", negative), ends("most positive", positive));
      factor.append(element("h3", `Factor ${shown + row + 1}`), both);
      list.append(factor);
    });
    const left = data.factors.length - list.childElementCount;
    at("more-factors").hidden = left <= 0;
    at("more-factors").textContent = `Show ${Math.min(AT_ONCE, left)} more of ${data.factors.length} factors`;
  };
  const isKnown = data.factors.some(([negative]) => negative.length);
  at("factors-said").textContent = isKnown
    ? `Mean value of the songs that were played, of artists with at least ${about.min_songs} of them. A factor’s sign means nothing by itself: only its two ends differ. Choose an artist to see their songs on the map.`
    : `No two artists are known by at least ${about.min_songs} played songs each, so there is nothing to compare.`;
  if (!isKnown) return;
  at("more-factors").addEventListener("click", more);
  more();
}
