import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readProcessSettings } from '../../src/config/index.ts';

for (const [what, env, base] of [
  ['GitHub and Gitea', { GITHUB_BASE_REF: 'main' }, 'origin/main'],
  ['GitHub on a push, where it is empty', { GITHUB_BASE_REF: '' }, undefined],
  ['GitLab', { CI_MERGE_REQUEST_DIFF_BASE_SHA: 'a'.repeat(40) }, 'a'.repeat(40)],
  ['Jenkins', { CHANGE_TARGET: 'release/1.2' }, 'origin/release/1.2'],
  ['Azure Pipelines', { SYSTEM_PULLREQUEST_TARGETBRANCH: 'refs/heads/main' }, 'origin/main'],
  ['Bitbucket', { BITBUCKET_PR_DESTINATION_BRANCH: 'main' }, 'origin/main'],
  ['none', {}, undefined],
] as const) {
  test(`the base of a change in ${what}`, () => assert.equal(readProcessSettings(env).ciBase, base));
}

test('the objects of a push are looked for elsewhere only inside of its hook', () => {
  const env = {
    GIT_OBJECT_DIRECTORY: '/srv/git/a.git/objects/incoming',
    GIT_ALTERNATE_OBJECT_DIRECTORIES: '/srv/git/a.git/objects',
  };
  assert.equal(readProcessSettings(env).gitQuarantine, undefined);
  assert.deepEqual(readProcessSettings({ ...env, GIT_QUARANTINE_PATH: env.GIT_OBJECT_DIRECTORY }).gitQuarantine, {
    directory: env.GIT_OBJECT_DIRECTORY,
    alternates: env.GIT_ALTERNATE_OBJECT_DIRECTORIES,
  });
});
