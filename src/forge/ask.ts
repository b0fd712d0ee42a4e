import type { z } from 'zod';
import { CountersignError, messageOf } from '../model/index.ts';

/** One question to a forge's REST API. */
export type Question = {
  readonly url: string;
  readonly method?: 'GET' | 'POST';
  readonly headers: Readonly<Record<string, string>>;
};

const TIMEOUT_MS = 30_000;
const MAX_ANSWER = 8 * 1024 * 1024; // a page of 100 reviews with long texts is below 1 MiB
const MAX_PAGES = 50;

/**
 * Asks and checks the shape of the answer. Throws `forge-unreachable` (may be tried again) or `forge-refused`, with the
 * forge's own words; never with a token.
 */
export async function ask<T>(question: Question, schema: z.ZodType<T>): Promise<{ readonly value: T; readonly next: string | undefined }> {
  const { origin, pathname } = new URL(question.url);
  const response = await fetch(question.url, {
    method: question.method ?? 'GET',
    headers: { 'user-agent': 'countersign', ...question.headers },
    redirect: 'error', // a token goes to the server it was given for and nowhere else
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch((cause) => {
    throw new CountersignError('forge-unreachable', `cannot reach \`${origin}\`: ${messageOf((cause as Error).cause ?? cause)}`, {
      cause,
      hint: 'check --api-url and the network',
      recover: 'retry',
    });
  });
  const text = await readText(response, origin);
  if (!response.ok)
    throw new CountersignError('forge-refused', `\`${origin}${pathname}\` answered ${response.status}: ${messageIn(text)}`, {
      hint:
        response.status === 401 || response.status === 403
          ? 'does the token in --token-file read pull requests?'
          : response.status === 404
            ? 'check --repository and the number; a token that may not read looks the same'
            : 'try again later',
      recover: response.status >= 500 || response.status === 429 ? 'retry' : 'wait',
    });
  const parsed = schema.safeParse(parse(text));
  if (!parsed.success)
    throw new CountersignError(
      'forge-refused',
      `\`${origin}${pathname}\` answered with something else than documented: ${parsed.error.issues[0]?.path.join('.') ?? ''} ${parsed.error.issues[0]?.message ?? ''}`,
      {
        hint: 'is --forge right?',
      },
    );
  return { value: parsed.data, next: nextPage(response.headers.get('link'), question.url) };
}

/** Asks page after page (RFC 8288 `Link: …; rel="next"`), on the same server only. */
export async function askAll<T>(question: Question, schema: z.ZodType<T[]>): Promise<T[]> {
  const all: T[] = [];
  let url: string | undefined = question.url;
  for (let page = 0; url !== undefined; page++) {
    if (page === MAX_PAGES)
      throw new CountersignError('forge-refused', `\`${new URL(question.url).origin}\` has more than ${MAX_PAGES} pages of reviews`);
    const { value, next }: { value: T[]; next: string | undefined } = await ask({ ...question, url }, schema);
    all.push(...value);
    url = next;
  }
  return all;
}

async function readText(response: Response, origin: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_ANSWER) throw new CountersignError('forge-refused', `\`${origin}\` answered with more than ${MAX_ANSWER} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function nextPage(link: string | null, asked: string): string | undefined {
  const next = /<([^>]+)>;\s*rel="next"/.exec(link ?? '')?.[1];
  return next !== undefined && new URL(next).origin === new URL(asked).origin ? next : undefined;
}

function messageIn(text: string): string {
  const message = (parse(text) as { message?: unknown } | undefined)?.message;
  return typeof message === 'string' ? message.slice(0, 200) : 'no reason given';
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
