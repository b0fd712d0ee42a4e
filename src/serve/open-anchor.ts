import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ApiServer, CheckpointMap } from '../cluster/index.ts';
import { CheckpointRef, type GitAccess, type GitProgram, redactUrl, sshSignature } from '../git/index.ts';
import {
  type Anchor,
  fileAnchor,
  type Ledger,
  type LedgerKey,
  openSigner,
  parseWitness,
  timestampAnchor,
  witnessAnchor,
} from '../ledger/index.ts';
import { CountersignError, type HttpAddress, parseHttpAddress, sha256 } from '../model/index.ts';

/** Parts from which anchors are created. */
export type AnchorParts = {
  readonly data: string;
  readonly ledger: Ledger;
  readonly key: LedgerKey | undefined;
  readonly server: ApiServer;
  readonly git: GitProgram | undefined;
  /** Credentials for a repository that an environment also names; none for others. */
  readonly access: (url: string) => () => Promise<GitAccess>;
};

const FORMS = 'file:PATH, configmap:NAMESPACE/NAME, git:URL, witness:URL#KEY or timestamp:URL#CERTIFICATE-FILE';

/** Parses `--anchor kind:place`, as far as possible without a ledger. Throws `usage` and `key-unusable`. */
export function parseAnchor(text: string): (parts: AnchorParts) => Anchor {
  const [, kind, place = ''] = /^([a-z]+):(.+)$/.exec(text) ?? [];
  const [address = '', detail = ''] = [
    place.slice(0, place.indexOf('#') < 0 ? undefined : place.indexOf('#')),
    place.split('#')[1],
  ];
  switch (kind) {
    case 'file':
      return () => fileAnchor(place);
    case 'configmap':
      return configMap(place);
    case 'git':
      return (parts) => gitRef(place, parts);
    case 'witness': {
      const web = webAddress(address);
      parseWitness(detail); // parsed again when the ledger is open
      return ({ data, ledger }) => witnessAnchor(web, detail, join(data, 'anchors'), ledger.read);
    }
    case 'timestamp': {
      const [web, authority] = [webAddress(address, true), certificate(detail)];
      return ({ data }) => timestampAnchor(web, authority, join(data, 'anchors'));
    }
    default:
      throw new CountersignError('usage', `\`${redactUrl(text)}\` is not an anchor`, { hint: `use one of ${FORMS}` });
  }
}

function configMap(place: string): (parts: AnchorParts) => Anchor {
  const [namespace, name, ...rest] = place.split('/');
  if (namespace === undefined || name === undefined || rest.length > 0)
    throw new CountersignError('usage', `\`${place}\` does not name a ConfigMap`, {
      hint: 'for example configmap:countersign/ledger',
    });
  return ({ server }) => {
    const map = new CheckpointMap(server, namespace, name);
    return { name: `configmap ${place}`, read: () => map.read(), write: (note) => map.write(note) };
  };
}

function gitRef(url: string, { data, ledger, key, git, access }: AnchorParts): Anchor {
  if (git === undefined)
    throw new CountersignError('tool-missing', 'there is no `git` on the PATH', { hint: 'install git' });
  const signer = openSigner(data, ledger.verifier.name, key);
  const ref = new CheckpointRef({
    url,
    directory: join(data, 'anchors', sha256(url).slice(0, 16)),
    git,
    access: access(url),
    sign: (payload) => sshSignature(payload, signer.publicKey, signer.sign),
    clock: () => new Date(),
  });
  return { name: `git ${redactUrl(url)}`, read: () => ref.read(), write: (note) => ref.write(note) };
}

function webAddress(text: string, query = false): HttpAddress {
  const parsed = parseHttpAddress(text, { query });
  if (parsed.kind === 'parsed') return parsed.value;
  throw new CountersignError('usage', `the address of an anchor cannot be used: ${parsed.why}`, {
    hint: `use one of ${FORMS}`,
  });
}

function certificate(file: string): string {
  try {
    const text = readFileSync(file, 'utf8');
    return new X509Certificate(text).toString();
  } catch (cause) {
    throw new CountersignError('usage', `the authority’s certificate \`${file}\` cannot be read`, {
      cause,
      hint: 'give its signing certificate in PEM: timestamp:https://tsa.example/#tsa.pem',
    });
  }
}
