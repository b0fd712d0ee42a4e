import { below, type HttpAddress, httpAddress, type Notifier, projectParts, type Told } from '../model/index.ts';
import { plainText, type Secrets, STATES } from './messages.ts';

type To = Extract<Notifier['spec']['to'], { deployment: unknown }>['deployment'];

/** Sends one call to a forge's API and returns the answer. */
export type Call = (
  method: 'GET' | 'POST' | 'PUT',
  to: HttpAddress,
  headers: Readonly<Record<string, string>>,
  body?: object,
) => Promise<unknown>;

/**
 * Reports to a forge what happened to a commit in an environment, as a deployment. There is one per commit and
 * environment; it is looked up by both, so that a restart does not create a second one.
 */
export async function tellDeployment(to: To, happened: Told, secret: Secrets, call: Call): Promise<void> {
  const state = STATES[happened.event];
  if (state === undefined || !/^[0-9a-f]{40,64}$/.test(happened.revision) || /^0+$/.test(happened.revision)) return;
  const token = secret(to.tokenFile);
  const base = httpAddress(to.apiUrl);
  await (to.forge === 'gitlab'
    ? onGitLab(to, base, token, happened, state, call)
    : onGitHub(to, base, token, happened, state, call));
}

type State = 'pending' | 'success' | 'failure';

async function onGitHub(
  { repository }: To,
  base: HttpAddress,
  token: string,
  happened: Told,
  state: State,
  call: Call,
): Promise<void> {
  const { environment, revision, message } = happened;
  const headers = { accept: 'application/vnd.github+json', authorization: `Bearer ${token}` };
  const at = below(base, `/repos/${projectParts(repository).join('/')}/deployments`);
  const known = idOf(
    await call(
      'GET',
      below(at, '', `sha=${revision}&environment=${encodeURIComponent(environment)}&per_page=1`),
      headers,
    ),
  );
  // The decision whether to deploy was made here; GitHub must not merge or require its own checks.
  const asked = { ref: revision, environment, auto_merge: false, required_contexts: [], description: 'countersign' };
  const id = known ?? idOf([await call('POST', at, headers, asked)]);
  const description = plainText(message).slice(0, 140);
  if (id !== undefined)
    await call('POST', below(at, `/${id}/statuses`), headers, {
      state: state === 'pending' ? 'in_progress' : state,
      environment,
      description,
    });
}

async function onGitLab(
  { repository, branch }: To,
  base: HttpAddress,
  token: string,
  happened: Told,
  state: State,
  call: Call,
): Promise<void> {
  const { environment, revision } = happened;
  const headers = { 'private-token': token };
  const at = below(base, `/projects/${projectParts(repository).join('%2F')}/deployments`);
  const status = { pending: 'running', success: 'success', failure: 'failed' }[state];
  const query = `environment=${encodeURIComponent(environment)}&order_by=id&sort=desc&per_page=20`;
  const listed = (await call('GET', below(at, '', query), headers)) as { sha?: unknown }[];
  const id = idOf(Array.isArray(listed) ? listed.filter((d) => d.sha === revision) : []);
  if (id === undefined)
    await call('POST', at, headers, { environment, sha: revision, ref: branch, tag: false, status });
  else await call('PUT', below(at, `/${id}`), headers, { status });
}

function idOf(list: unknown): number | undefined {
  const [first] = Array.isArray(list) ? (list as { id?: unknown }[]) : [];
  return typeof first?.id === 'number' && Number.isSafeInteger(first.id) && first.id >= 0 ? first.id : undefined;
}
