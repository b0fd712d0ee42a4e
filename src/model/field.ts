import { z } from 'zod';
import {
  type Parsed,
  parseBranch,
  parseFileName,
  parseGitSource,
  parseHost,
  parseHttpAddress,
  parseImageReference,
  parseMailbox,
  parseMailServer,
  parseProject,
  parseRepositoryPath,
  parseSshFileName,
} from './address.ts';

/** The consumer of a text in a document: a network, a file system, or a program or library with its own grammar. */
type Becomes = 'address' | 'file' | 'argument';

/**
 * Fields of documents that something else interprets, each with the parser that validates it. A text field must be here
 * or in the list of plain texts: otherwise `test/config/fields.test.ts` fails.
 */
export const interpreted = z.registry<Mark>();

/** How a text is interpreted, and the place that a name in it is looked up in, if that is one of the service's. */
export type Mark = {
  readonly becomes: Becomes;
  readonly parse: (text: string) => Parsed<unknown>;
  readonly place?: Place;
};

/** A file or directory of the service's own machine; or a Git repository, which may be on that machine. */
export type Place = 'service-file' | 'service-directory' | 'git-repository';

/** A text that must parse; the problem says what is wrong with it. */
function parsedBy(becomes: Becomes, parse: (text: string) => Parsed<unknown>, shape: string, place?: Place) {
  return z
    .string()
    .superRefine((text, context) => {
      const parsed = parse(text);
      if (parsed.kind === 'refused') context.addIssue({ code: 'custom', message: `${shape}: ${parsed.why}` });
    })
    .register(interpreted, { becomes, parse, ...(place === undefined ? {} : { place }) });
}

/** A text with a closed grammar. */
export function shapedBy(becomes: Becomes, pattern: RegExp, shape: string) {
  const parse = (text: string): Parsed<string> =>
    pattern.test(text) ? { kind: 'parsed', value: text } : { kind: 'refused', why: `it is not ${shape}` };
  const text = z.string(shape);
  // A pattern is copied into the CustomResourceDefinitions, whose pattern language has no lookahead (RE2).
  const checked = pattern.source.includes('(?!')
    ? text.refine((t) => pattern.test(t), shape)
    : text.regex(pattern, shape);
  return checked.register(interpreted, { becomes, parse });
}

const withQuery = (text: string) => parseHttpAddress(text, { query: true });
const upwards = (text: string) => parseRepositoryPath(text, true);

export const field = {
  address: parsedBy('address', (text) => parseHttpAddress(text), '`https://HOST/PATH`'),
  addressWithQuery: parsedBy('address', withQuery, '`https://HOST/PATH?QUERY`'),
  host: parsedBy('address', parseHost, '`HOST` or `HOST:PORT`'),
  gitSource: parsedBy('address', parseGitSource, '`https://…`, `ssh://…` or a path', 'git-repository'),
  image: parsedBy('address', parseImageReference, '`registry/repository@sha256:…`'),
  mailServer: parsedBy('address', parseMailServer, '`smtp://HOST:PORT` or `smtps://HOST:PORT`'),
  mailbox: parsedBy('address', parseMailbox, 'one plain mail address'),
  project: parsedBy('address', parseProject, '`OWNER/NAME`'),
  file: parsedBy('file', parseFileName, 'a file name', 'service-file'),
  sshFile: parsedBy('file', parseSshFileName, 'a file name', 'service-file'),
  directory: parsedBy('file', parseFileName, 'a directory name', 'service-directory'),
  /** Inside a repository. */
  path: parsedBy('file', (text) => parseRepositoryPath(text), 'a path in the repository'),
  /** Inside a repository, possibly above the environment's directory. */
  pathNear: parsedBy('file', upwards, 'a path in the repository'),
  branch: parsedBy('argument', parseBranch, 'a branch name'),
} as const;
