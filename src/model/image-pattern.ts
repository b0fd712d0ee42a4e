import { wildcardMatches } from './glob.ts';

/**
 * The form of a reference to an image with a tag or digest (distribution/reference), in which `*` may stand in the tag
 * and for the digest. Groups: the repository; tag and digest; or the digest alone.
 */
export const IMAGE_PATTERN =
  /^((?:[a-z0-9.-]+(?::\d{1,5})?\/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)(?::([\w*.-]{1,128})(?:@sha256:([0-9a-f]{64}|\*))?|@sha256:([0-9a-f]{64}|\*))$/;

/**
 * Tests whether a pattern of this form matches a reference to an image. `*` stands for characters of a tag, or for a
 * whole digest, so it matches no other repository, and no digest behind a tag.
 */
export function imageMatches(pattern: string, image: string): boolean {
  const [wanted, found] = [partsOf(pattern), partsOf(image)];
  if (wanted === undefined || found === undefined || image.includes('*')) return false;
  const isSame = (part: 'tag' | 'digest') => {
    const [one, other] = [wanted[part], found[part]];
    return one === undefined || other === undefined ? one === other : wildcardMatches(one, other);
  };
  return wanted.repository === found.repository && isSame('tag') && isSame('digest');
}

function partsOf(image: string) {
  const match = image.length > 1024 ? null : IMAGE_PATTERN.exec(image);
  if (match === null) return undefined;
  const [, repository, tag, behindTag, alone] = match;
  return { repository, tag, digest: behindTag ?? alone };
}
