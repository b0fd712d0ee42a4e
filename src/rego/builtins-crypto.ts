import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { type Builtin, text } from './builtin.ts';

const hash =
  (algorithm: string): Builtin =>
  ([value]) =>
    createHash(algorithm).update(text(value)).digest('hex');

const hmac =
  (algorithm: string): Builtin =>
  ([message, key]) =>
    createHmac(algorithm, text(key)).update(text(message)).digest('hex');

/** Digests and keyed digests (HMAC), in hexadecimal. */
export const CRYPTO_BUILTINS: Readonly<Record<string, Builtin>> = {
  'crypto.md5': hash('md5'),
  'crypto.sha1': hash('sha1'),
  'crypto.sha256': hash('sha256'),
  'crypto.hmac.md5': hmac('md5'),
  'crypto.hmac.sha1': hmac('sha1'),
  'crypto.hmac.sha256': hmac('sha256'),
  'crypto.hmac.sha512': hmac('sha512'),
  'crypto.hmac.equal': ([a, b]) => {
    const [x, y] = [Buffer.from(text(a)), Buffer.from(text(b))];
    return x.length === y.length && timingSafeEqual(x, y);
  },
};
