import { type RenderedObject, refText, type ValuePath, type Violation } from '../model/index.ts';

/** Matches a value encrypted by SOPS. */
export const ENCRYPTED = /^ENC\[AES256_GCM,/;
const FIELDS = ['data', 'stringData'];

/**
 * Returns the problems of an object encrypted by SOPS. It is judged as it is in Git and decrypted only for the API
 * server. So it must be a Secret, whose values are hidden everywhere, and nothing but its values may be encrypted.
 * @param canDecrypt whether the environment has keys (`spec.decryption`)
 */
export function encryptionProblems({ object, ref, source, lineOf }: RenderedObject, canDecrypt: boolean): Violation[] {
  const { sops, ...rest } = object as Record<string, unknown>;
  const encrypted = encryptedPaths(rest, []);
  if (sops === undefined && encrypted.length === 0) return [];
  const refuse = (why: string, hint: string, path: ValuePath = ['sops']): Violation[] => [
    {
      code: 'cannot-be-decrypted',
      message: `${refText(ref)} ${why}`,
      object: ref,
      source: { file: source.file, line: lineOf(path) },
      hint,
    },
  ];
  const outside = encrypted.find(([field]) => !FIELDS.includes(String(field)));
  if (sops === undefined)
    return refuse(
      'has values encrypted by SOPS, but not the data keys',
      'keep the key `sops` of the file',
      encrypted[0],
    );
  if (outside !== undefined || ref.kind !== 'Secret')
    return refuse(
      'is encrypted outside `data` and `stringData` of a Secret',
      "encrypt with `--encrypted-regex '^(data|stringData)$'`, and keep secret values in Secrets",
      outside,
    );
  if (!canDecrypt)
    return refuse('is encrypted by SOPS, but this environment has no keys', 'name them in `spec.decryption`');
  const { age, pgp, shamir_threshold: threshold } = sops as Readonly<Record<string, unknown>>;
  if (typeof sops !== 'object' || (!isFilled(age) && !isFilled(pgp)) || threshold !== undefined)
    return refuse(
      'is not encrypted for an age key or an OpenPGP key',
      'add one as a recipient; cloud KMS keys and split keys are not supported',
    );
  return [];
}

function isFilled(list: unknown): boolean {
  return Array.isArray(list) && list.length > 0;
}

function encryptedPaths(value: unknown, at: ValuePath): ValuePath[] {
  if (typeof value === 'string') return ENCRYPTED.test(value) ? [at] : [];
  if (typeof value !== 'object' || value === null) return [];
  const isList = Array.isArray(value);
  return Object.entries(value).flatMap(([key, inner]) => encryptedPaths(inner, [...at, isList ? Number(key) : key]));
}
