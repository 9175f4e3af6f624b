// A dropped file, as the server takes it: base64 of the whole, or of its middle where it is long.

const EXCERPT_SECONDS = 30;
const EXCERPT_RATE_HZ = 44100;
const MOST_BYTES_TO_DECODE = 200e6;

// Returns the file's bytes as base64.
function base64Of(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Refused("unreadable", "The file can’t be read."));
    reader.readAsDataURL(blob);
  });
}

// Returns the file's middle half-minute as a mono WAV, decoded by the browser.
async function middleOf(file) {
  if (file.size > MOST_BYTES_TO_DECODE) {
    throw new Refused("too_long", "The file is too large for a browser to cut; drop a shorter one.");
  }
  let audio;
  try {
    const context = new OfflineAudioContext(1, 1, EXCERPT_RATE_HZ);
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Refused("too_long", "The file is long, and this browser can’t cut it; drop a shorter one.");
  }
  const length = Math.min(audio.length, EXCERPT_SECONDS * EXCERPT_RATE_HZ);
  const start = Math.floor((audio.length - length) / 2);
  const mixed = new Float32Array(length);
  for (let channel = 0; channel < audio.numberOfChannels; channel += 1) {
    const samples = audio.getChannelData(channel).subarray(start, start + length);
    for (let at = 0; at < length; at += 1) mixed[at] += samples[at] / audio.numberOfChannels;
  }
  return wavOf(mixed);
}

// Writes samples as a WAV file of 16 bits.
function wavOf(samples) {
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, letters) => [...letters].forEach((one, i) => view.setUint8(at + i, one.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + samples.length * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, EXCERPT_RATE_HZ, true);
  view.setUint32(28, EXCERPT_RATE_HZ * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.length * 2, true);
  samples.forEach((one, at) => {
    view.setInt16(44 + at * 2, Math.round(Math.max(-1, Math.min(1, one)) * 32767), true);
  });
  return new Blob([view], { type: "audio/wav" });
}
