import {
  type Configuration,
  loadConfiguration,
  type ProcessSettings,
  readTrustPolicy,
  readWaiver,
} from '../config/index.ts';
import type { Gate, OpenPolicy, SourceRepository } from '../gate/index.ts';
import { NativeRepository, UserRepository } from '../git/index.ts';
import { CountersignError, type Environment, type TrustPolicy, Turns } from '../model/index.ts';
import { findOnPath } from '../tools/index.ts';
import { openTrustStore, type TrustStore } from '../trust/index.ts';
import { memoryShare } from './memory-share.ts';
import { openRules, type RulesOptions } from './open-rules.ts';

/** Returns the environment with that name, or the only one if no name is given. */
export function chooseEnvironment(configuration: Configuration, name: string | undefined): Environment {
  const all = configuration.environments;
  const names = all.map((e) => `\`${e.metadata.name}\``).join(', ');
  if (name === undefined && all.length === 1) return all[0] as Environment;
  const chosen = all.find((e) => e.metadata.name === name);
  if (chosen === undefined)
    throw new CountersignError(
      'usage',
      name === undefined ? `there are several environments: ${names || 'none'}` : `there is no environment \`${name}\``,
      {
        hint:
          all.length === 0
            ? 'add an Environment document to the configuration'
            : `use --environment with one of ${names}`,
      },
    );
  return chosen;
}

/** Returns the TrustPolicy an environment names; the configuration was checked to contain it. */
export function trustOf(configuration: Configuration, environment: Environment): TrustPolicy {
  return configuration.trustPolicies.find((t) => t.metadata.name === environment.spec.trust) as TrustPolicy;
}

/** Opens a TrustPolicy of a configuration. Errors as `openTrustStore`, with file and line. */
export function openTrust({ keyPlaces }: Configuration, policy: TrustPolicy): Promise<TrustStore> {
  return openTrustStore(policy, keyPlaces.get(policy.metadata.name));
}

/** Opens a TrustPolicy stored in a repository. */
export const openPolicy: OpenPolicy = (text, file) => openTrustStore(readTrustPolicy(text, file));

type GateOptions = RulesOptions & Pick<Gate, 'make' | 'read' | 'untrusted'> & { readonly turns?: Turns };

/** Opens the gate of an environment, without a recorder, and returns it with what ends the threads of its rules. */
export async function openGate(
  configuration: Configuration,
  environment: Environment,
  repository: SourceRepository,
  clock: () => Date,
  { make, read, untrusted, turns = new Turns(), ...options }: GateOptions,
): Promise<{ readonly gate: Gate; readonly close: () => Promise<void> }> {
  const { rules, close } = openRules(environment, repository, options);
  const gate: Gate = {
    environment,
    repository,
    trust: await openTrust(configuration, trustOf(configuration, environment)),
    rules,
    recorder: undefined,
    clock,
    turns,
    openPolicy,
    openWaiver: readWaiver,
    make,
    read,
    untrusted,
  };
  return { gate, close };
}

/** Loads `--config` (and `--trust`), with defaults. */
export function openConfiguration(options: { config: string[]; trust?: string | undefined }): Configuration {
  return loadConfiguration(options.trust === undefined ? options.config : [...options.config, options.trust]);
}

/** Finds the `git` program, if there is one. */
export function gitProgram(settings: ProcessSettings): { file: string; path: string; memory: number } | undefined {
  const file = findOnPath('git', settings.path);
  return file === undefined
    ? undefined
    : { file, path: settings.path, memory: Math.min(memoryShare(), MAX_GIT_MEMORY) };
}

const MAX_GIT_MEMORY = 4 * 1024 * 1024 * 1024; // unpacking the largest histories we know takes half of it

/** Opens a person's checkout, with objects read the same way as in the service. */
export async function openCheckout(
  directory: string,
  settings: ProcessSettings,
  quarantine?: ProcessSettings['gitQuarantine'],
): Promise<{ user: UserRepository; repository: NativeRepository }> {
  const git = gitProgram(settings);
  if (git === undefined)
    throw new CountersignError('tool-missing', 'there is no `git` on the PATH', { hint: 'install git' });
  const user = new UserRepository(directory, git.file);
  return { user, repository: new NativeRepository(await user.gitDirectory(), { ...git, quarantine }) };
}
