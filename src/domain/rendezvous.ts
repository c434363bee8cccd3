/**
 * Candidate order by rendezvous hashing (Thaler and Ravishankar 1998, highest random weight): every
 * node computes the same order from the names alone, keys spread evenly, and when a node comes or
 * goes only its own keys move.
 */

const mix = (hash: number): number => {
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
};

/** FNV-1a over UTF-16 code units, finished as MurmurHash3 is: 32 bits. */
function hash32(text: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return mix(hash);
}

/** Weight of a node for a key: 53 bits, the same everywhere. */
export const rendezvousWeight = (key: string, node: string): number =>
  hash32(`${key}\0${node}`, 0) * 2 ** 21 + (hash32(`${node}\0${key}`, 0x9e3779b9) >>> 11);

/** Nodes in the order in which they are to lead `key`: highest weight first. */
export function candidateOrder(key: string, nodes: Iterable<string>): string[] {
  return [...nodes]
    .map((node) => ({ node, weight: rendezvousWeight(key, node) }))
    .sort((a, b) => b.weight - a.weight || (a.node < b.node ? -1 : 1))
    .map(({ node }) => node);
}
