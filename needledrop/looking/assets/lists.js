// One song: what is known about it, its sound, and its neighbours under both kinds of factors.

class SongCard {
  constructor(picked) {
    this.picked = picked;
    this.sound = at("sound");
    this.sound.addEventListener("error", () => {
      if (this.sound.hasAttribute("src")) at("sound-said").textContent = "The clip can’t be played: it isn’t where it was when this page was made, or the browser doesn’t know its format.";
    });
  }

  // Returns the songs of both lists.
  show(song, { aloud }) {
    at("song-title").firstChild.textContent = songs.title[song];
    at("song-facts").replaceChildren(...this.factsOf(song));
    this.load(songs.link[song], aloud);
    return this.list(song);
  }

  // Each name by itself: one that is written from right to left must not turn the others around.
  factsOf(song) {
    const n = songs.listeners[song];
    const tags = tagsOf(song).flatMap((tag, place) => [place ? ", " : " · ", element("bdi", tag)]);
    const artist = artistOf(song) ? [element("bdi", artistOf(song)), " · "] : [];
    return [...artist, `${number(n)} ${n === 1 ? "listener" : "listeners"} · ${PARTS[songs.part[song]]}`, ...tags];
  }

  load(link, aloud) {
    this.sound.hidden = !link;
    at("sound-said").textContent = link ? "" : "There is no clip of it here.";
    this.sound.pause();
    if (!link) return this.sound.removeAttribute("src");
    this.sound.src = link;
    // A browser may forbid sound before the first click; then the button is there.
    if (aloud) this.sound.play().catch(() => undefined);
    return undefined;
  }

  list(song) {
    const row = rowOfQuery.get(song);
    const [byUsage, byAudio] = row === undefined ? [null, null] : [data.by_usage[row], data.by_audio[row]];
    const inBoth = new Set((byUsage?.[0] ?? []).filter((one) => byAudio[0].includes(one)));
    this.fill("by-usage", byUsage, inBoth);
    this.fill("by-audio", byAudio, inBoth);
    at("usage-said").textContent = byUsage ? "" : row === undefined ? "Not listed on this page." : "Nobody has played it.";
    at("audio-said").textContent = byAudio ? "" : "Not listed on this page.";
    at("lists-said").textContent = byUsage && byAudio ? `${inBoth.size} of ${byAudio[0].length} are in both lists (marked).` : "";
    return [...new Set([...(byUsage?.[0] ?? []), ...(byAudio?.[0] ?? [])])];
  }

  fill(id, list, inBoth) {
    const [rows, cosines] = list ?? [[], []];
    at(id).replaceChildren(...rows.map((song, place) => {
      const item = document.createElement("li");
      item.classList.toggle("in-both", inBoth.has(song));
      item.append(pickOf(song, this.picked), element("span", (cosines[place] / 1000).toFixed(3), { class: "score", title: "cosine of usage patterns" }));
      return item;
    }));
  }
}
