const REFERENCE = /\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}/g;

/** The names that `substituteText` knows. */
export const REFERENCE_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Replaces each `${NAME}` by its declared text, and `$${` by `${`. Calls `missing` for names that are not declared. */
export function substituteText(
  text: string,
  declared: Readonly<Record<string, string>>,
  missing: (name: string) => void,
): string {
  return text.replaceAll(REFERENCE, (whole, escaped: string, name: string) => {
    if (escaped !== '') return whole.slice(1);
    if (Object.hasOwn(declared, name)) return declared[name] as string;
    missing(name);
    return whole;
  });
}

/** Returns the length of a text after substitution, without building it. */
export function substitutedLength(text: string, declared: Readonly<Record<string, string>> | undefined): number {
  let { length } = text;
  if (declared === undefined || !text.includes('${')) return length;
  for (const { 0: whole, 1: escaped, 2: name = '' } of text.matchAll(REFERENCE)) {
    if (escaped !== '') length--;
    else if (Object.hasOwn(declared, name)) length += (declared[name] as string).length - whole.length;
  }
  return length;
}
