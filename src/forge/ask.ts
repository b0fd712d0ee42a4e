import type { z } from 'zod';
import { addressText, below, CountersignError, type HttpAddress, hostText, parseHttpAddress } from '../model/index.ts';
import { askServer, type Limits, type Reply } from '../outgoing/index.ts';

/** One request to a forge's REST API. */
export type Question = {
  readonly to: HttpAddress;
  readonly method?: 'GET' | 'POST';
  readonly headers: Readonly<Record<string, string>>;
};

// a page of 100 reviews with long texts has less than 1 MiB
const LIMITS: Limits = { bytes: 8 * 1024 * 1024, quietMs: 30_000, totalMs: 60_000 };
const MAX_PAGES = 50;
const ALL_MS = 5 * 60_000;

/**
 * Sends a request and checks the shape of the answer. A token is only sent to its own server. Throws
 * `forge-unreachable` (may be retried) or `forge-refused`, with the forge's status but none of its text.
 */
export async function ask<T>(
  { to, method = 'GET', headers }: Question,
  schema: z.ZodType<T>,
  limits: Limits = LIMITS,
): Promise<{ readonly value: T; readonly next: HttpAddress | undefined }> {
  const reply = await askServer(to, { method, headers }, limits);
  if (reply.status < 200 || reply.status >= 300) throw refused(to, reply.status);
  const parsed = schema.safeParse(parse(reply.body.toString('utf8')));
  if (parsed.success) return { value: parsed.data, next: nextPage(reply, to) };
  const where = parsed.error.issues[0]?.path.join('.') ?? '';
  throw new CountersignError(
    'forge-refused',
    `\`${shown(to)}\` does not answer as documented${where === '' ? '' : `: at \`${where}\``}`,
    {
      hint: 'check that --forge is right',
    },
  );
}

/** Requests page after page (RFC 8288 `Link: …; rel="next"`), on the same server only. */
export async function askAll<T>(question: Question, schema: z.ZodType<T[]>, limits: Limits = LIMITS): Promise<T[]> {
  const all: T[] = [];
  const end = performance.now() + ALL_MS;
  let to: HttpAddress | undefined = question.to;
  for (let page = 0; to !== undefined; page++) {
    if (page === MAX_PAGES || performance.now() > end)
      throw new CountersignError(
        'forge-refused',
        `${hostText(question.to)} has more than ${MAX_PAGES} pages of reviews, or is too slow to return them`,
      );
    const { value, next }: { value: T[]; next: HttpAddress | undefined } = await ask(
      { ...question, to },
      schema,
      limits,
    );
    all.push(...value);
    to = next;
  }
  return all;
}

function refused(to: HttpAddress, status: number): CountersignError {
  const hint =
    status === 401 || status === 403
      ? 'check that the token in --token-file may read pull requests'
      : status === 404
        ? 'check --repository and the number; a token without read access gives the same answer'
        : 'try again later';
  const recover = status >= 500 || status === 429 ? 'retry' : 'wait';
  return new CountersignError('forge-refused', `\`${shown(to)}\` answers ${status}`, { hint, recover });
}

// The next page must be on the same server; any other `Link` is an error, because unread reviews must not be missed.
function nextPage(reply: Reply, asked: HttpAddress): HttpAddress | undefined {
  const { link } = reply.headers;
  const next = /<([^>]*)>;\s*rel="?next"?/.exec(typeof link === 'string' ? link : '')?.[1];
  if (next === undefined) return undefined;
  const url = URL.parse(next, addressText(asked));
  const parsed = url === null ? undefined : parseHttpAddress(url.href, { query: true });
  if (parsed?.kind !== 'parsed' || parsed.value.scheme !== asked.scheme || hostText(parsed.value) !== hostText(asked))
    throw new CountersignError('forge-refused', `${hostText(asked)} names a next page on a different server`, {
      hint: 'check --api-url: it must be the address that the forge itself uses',
    });
  return parsed.value;
}

// Returns the address without the query.
function shown(to: HttpAddress): string {
  return addressText(below(to, ''));
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
