import { after } from 'node:test';
import { type ApprovalChanges, approveAs } from './approve.ts';
import { trustDocument } from './documents.ts';
import { endGpg, Fleet, openPgpPerson, type Person, sshPerson } from './fleet.ts';
import { codes, type JudgeOptions, judge } from './judge.ts';
import { configMap, namespace } from './manifests.ts';
import { forge } from './objects.ts';
import { scratch } from './scratch.ts';

const PATH = 'clusters/production';

/** A repository under attack: `dana` (SSH) and `lee` (OpenPGP) are trusted, `mallory` is not. */
export type AttackStage = {
  readonly directory: string;
  readonly fleet: Fleet;
  readonly dana: Person;
  readonly lee: Person;
  readonly kim: Person;
  readonly mallory: Person;
  /** Commits as they should be: the first by dana, the second by lee. */
  readonly first: string;
  readonly second: string;
  /** The codes of the verdict on a commit, from nothing, with no approvals required. */
  readonly judged: (commit: string, options?: JudgeOptions) => Promise<string[]>;
  /** The codes of the verdict on an altered copy of a commit. */
  readonly forged: (commit: string, change: (raw: string) => string) => Promise<string[]>;
  /** A new commit by dana on top of the first, and the codes after an approval that was tampered with. */
  readonly approved: (
    approver: Person,
    changes?: ApprovalChanges,
    options?: { message?: string; author?: Person; trust?: object; people?: readonly Person[] },
  ) => Promise<string[]>;
};

export function attackStage(): AttackStage {
  const directory = scratch();
  const [dana, kim, mallory] = ['dana', 'kim', 'mallory'].map((name) => sshPerson(directory, name)) as [
    Person,
    Person,
    Person,
  ];
  const lee = openPgpPerson(directory, 'lee');
  after(() => endGpg(lee.gnupgHome ?? ''));
  const people = [dana, lee, kim];
  const fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  const first = fleet.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  const second = fleet.commit(lee, 'second', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '1' }) });
  fleet.push();
  let n = 0;
  const judged = async (commit: string, options: JudgeOptions = {}) =>
    codes(await judge(fleet, people, commit, { trust: trustDocument(people, { required: 0 }), ...options }));
  return {
    directory,
    fleet,
    dana,
    lee,
    kim,
    mallory,
    first,
    second,
    judged,
    forged: (commit, change) => judged(forge(fleet, commit, change)),
    approved: async (approver, changes = {}, options = {}) => {
      fleet.git(undefined, 'reset', '--quiet', '--hard', first);
      const file = { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { n: String(++n) }) };
      const commit = fleet.commit(
        dana,
        options.message ?? `change ${n}`,
        file,
        options.author === undefined ? {} : { author: options.author },
      );
      fleet.push('--force', 'main');
      await approveAs(approver, fleet, first, commit, changes);
      return codes(
        await judge(fleet, options.people ?? people, commit, {
          from: first,
          ...(options.trust === undefined ? {} : { trust: options.trust }),
        }),
      );
    },
  };
}
