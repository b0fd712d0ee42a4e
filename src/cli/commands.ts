import { Help, type Option } from '@commander-js/extra-typings';
import type { ProcessSettings } from '../config/index.ts';
import { CountersignError } from '../model/index.ts';
import type { ServeHooks } from '../serve/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import { admissionLearnCommand, admissionPreviewCommand, admissionScanCommand } from './admission-commands.ts';
import * as approval from './approval-commands.ts';
import * as glass from './break-glass-commands.ts';
import * as checking from './check-commands.ts';
import * as exceptions from './exception-commands.ts';
import type { Parent } from './flags.ts';
import { helpCommand } from './help-command.ts';
import * as ledgers from './ledger-commands.ts';
import * as operating from './operate-commands.ts';
import * as policies from './policy-commands.ts';
import * as reports from './report-commands.ts';
import * as serving from './serve-commands.ts';
import * as trusts from './trust-commands.ts';

type Context = { readonly io: Io; readonly hooks: ServeHooks; readonly settings: ProcessSettings };

/** Context for adding a group of commands. `run` passes on the exit code of an action. */
type Adding = Context & {
  readonly run: <A extends unknown[]>(action: (...args: A) => Promise<number>) => (...args: A) => Promise<void>;
};

/**
 * Adds every command to the program: its flags, and the function that runs it. Each function is loaded on demand, so
 * that a check in CI does not load the API server's client and the PDF writer. `done` gets the exit code.
 */
export function addCommands(program: Parent, context: Context, done: (code: number) => void): void {
  const adding: Adding = {
    ...context,
    run:
      (action) =>
      async (...args) =>
        done(await action(...args)),
  };
  const groups = [
    addChecks,
    addApprovals,
    addPolicies,
    addTrust,
    addServing,
    addLedger,
    addPass,
    addOperating,
    addAdmission,
    addBreakGlass,
    addExceptions,
    addReports,
  ];
  program.configureHelp({ optionDescription: describeOption });
  for (const add of groups) add(program, adding);
  addHelp(program, adding);
}

// A default that says only that the flag is not given is left out: `false`, or an empty list.
function describeOption(option: Option): string {
  const { defaultValue } = option as { readonly defaultValue?: unknown };
  const isNothing = defaultValue === false || (Array.isArray(defaultValue) && defaultValue.length === 0);
  const shown = isNothing ? Object.assign(Object.create(option), { defaultValue: undefined }) : option;
  return new Help().optionDescription(shown);
}

function addChecks(program: Parent, { io, settings, run }: Adding): void {
  const checkFile = () => import('./check.ts');
  checking.checkCommand(program).action(run(async (options) => (await checkFile()).check(options, settings, io)));
  checking
    .preReceiveCommand(program)
    .action(run(async (o) => (await import('./pre-receive.ts')).preReceive(process.stdin, o, settings, io)));
  checking
    .provenanceCommand(program)
    .action(run(async (range, o) => (await import('./provenance.ts')).provenance(range, o, settings, io)));
}

function addApprovals(program: Parent, { io, settings, run }: Adding): void {
  const approveFile = () => import('./approve.ts');
  const approvalsFile = () => import('./approvals.ts');
  approval
    .approveCommand(program)
    .action(run(async (commit, o) => (await approveFile()).approve(commit, o, settings, io)));
  const approvals = program.command('approvals').description('look at approvals, reject a change, import reviews');
  approval
    .approvalsListCommand(approvals)
    .action(run(async (o) => (await approvalsFile()).approvalsList(o, settings, io)));
  approval
    .approvalsVerifyCommand(approvals)
    .action(run(async (commit, o) => (await approvalsFile()).approvalsVerify(commit, o, settings, io)));
  approval
    .rejectCommand(approvals)
    .action(run(async (commit, o) => (await approveFile()).approve(commit, o, settings, io, 'reject')));
  approval
    .revokeCommand(approvals)
    .action(run(async (commit, o) => (await approveFile()).approve(commit, o, settings, io, 'revoke')));
  approval
    .approvalsImportCommand(approvals)
    .action(run(async (o) => (await approvalsFile()).approvalsImport(o, settings, io)));
}

function addPolicies(program: Parent, { io, settings, run }: Adding): void {
  const policyFile = () => import('./policy.ts');
  const policy = program.command('policy').description('work on policies: build, test, list, sign, waive, replay');
  policies
    .policyBuildCommand(policy)
    .action(run(async (roots, o) => (await policyFile()).policyBuild(roots, o, settings, io)));
  policies
    .policyTestCommand(policy)
    .action(run(async (roots, o) => (await import('./policy-test.ts')).policyTest(roots, o, settings, io)));
  policies.policyListCommand(policy).action(run(async (o) => (await policyFile()).policyList(o, settings, io)));
  policies
    .policySignCommand(policy)
    .action(run(async (file, o) => (await policyFile()).policySign(file, o, settings, io)));
  policies
    .policyWaiveCommand(policy)
    .action(run(async (rule, o) => (await policyFile()).policyWaive(rule, o, settings, io)));
  policies
    .policyReplayCommand(policy)
    .action(run(async (entry, o) => (await import('./policy-replay.ts')).policyReplay(entry, o, settings, io)));
  policies.policyCapabilitiesCommand(policy).action(run(async () => (await policyFile()).policyCapabilities(io)));
}

function addTrust(program: Parent, { io, run }: Adding): void {
  const trustFile = () => import('./trust.ts');
  const trust = program.command('trust').description('work on TrustPolicies: lint, list, import keys');
  trusts.trustLintCommand(trust).action(run(async (o) => (await trustFile()).trustLint(o, io)));
  trusts.trustListCommand(trust).action(run(async (o) => (await trustFile()).trustList(o, io)));
  trusts.trustImportCommand(trust).action(run(async (files, o) => (await trustFile()).trustImport(files, o, io)));
}

function addServing(program: Parent, { io, hooks, settings, run }: Adding): void {
  serving.serveCommand(program).action(
    run(async (given, command) => {
      // With documents in the cluster, the default directory of documents is not needed.
      const isDefault = given.configNamespace !== undefined && command.getOptionValueSource('config') === 'default';
      const options = { ...given, listen: given.webhook, ...(isDefault ? { config: [] } : {}) };
      return (await import('../serve/index.ts')).serve(options, settings, io, hooks);
    }),
  );
  serving.crdsCommand(program).action(run(async () => (await import('./crds.ts')).crds(io)));
  serving
    .manifestsCommand(program)
    .action(run(async (options) => (await import('./manifests.ts')).manifests(options, settings, io)));
}

function addLedger(program: Parent, { io, settings, run }: Adding): void {
  const proveFile = () => import('./ledger-prove.ts');
  const keysFile = () => import('./ledger-keys.ts');
  const ledger = program.command('ledger').description('read, check and export the ledger');
  ledgers
    .ledgerVerifyCommand(ledger)
    .action(run(async (options) => (await import('./ledger.ts')).ledgerVerify(options, io)));
  ledgers
    .ledgerShowCommand(ledger)
    .action(run(async (index, options) => (await import('./ledger-show.ts')).ledgerShow(index, options, io)));
  ledgers
    .ledgerProveCommand(ledger)
    .action(run(async (index, options) => (await proveFile()).ledgerProve(index, options, io)));
  ledgers
    .ledgerExportCommand(ledger)
    .action(run(async (directory, options) => (await proveFile()).ledgerExport(directory, options, io)));
  ledgers
    .ledgerImportCommand(ledger)
    .action(run(async (from, options) => (await proveFile()).ledgerImport(from, options, io)));
  ledgers
    .ledgerAuditCommand(ledger)
    .action(run(async (files, options) => (await import('./ledger-audit.ts')).ledgerAudit(files, options, io)));
  ledgers
    .ledgerArchiveCommand(ledger)
    .action(run(async (options) => (await import('./ledger-archive.ts')).ledgerArchive(options, io)));
  ledgers.rotateKeyCommand(ledger).action(run(async (options) => (await keysFile()).ledgerRotateKey(options, io)));
  ledgers.newEpochCommand(ledger).action(run(async (options) => (await keysFile()).ledgerNewEpoch(options, io)));
  ledgers.ledgerSchemaCommand(ledger).action(run(async (options) => (await keysFile()).ledgerSchema(options, io)));
  ledgers
    .forgetCommand(ledger)
    .action(run(async (text, o) => (await import('./ledger-forget.ts')).ledgerForget(text, o, settings, io)));
}

function addPass(program: Parent, { io, settings, run }: Adding): void {
  serving
    .applyCommand(program)
    .action(run(async (options) => (await import('./apply.ts')).apply(options, settings, io)));
  checking
    .adoptCommand(program)
    .action(run(async (options) => (await import('./adopt.ts')).adopt(options, settings, io)));
  checking.diffCommand(program).action(run(async (options) => (await import('./diff.ts')).diff(options, settings, io)));
}

function addOperating(program: Parent, { io, settings, run }: Adding): void {
  const operateFile = () => import('./operate.ts');
  operating.statusCommand(program).action(run(async (options) => (await operateFile()).status(options, io)));
  operating
    .explainCommand(program)
    .action(run(async (what, o) => (await import('./explain-object.ts')).explainObject(what, o, settings, io)));
  operating
    .suspendCommand(program)
    .action(run(async (name, o) => (await operateFile()).suspendOrResume('suspend', name, o, io)));
  operating
    .resumeCommand(program)
    .action(run(async (name, o) => (await operateFile()).suspendOrResume('resume', name, o, io)));
  operating
    .reconcileCommand(program)
    .action(run(async (name, options) => (await operateFile()).reconcile(name, options, io)));
  operating
    .rollbackCommand(program)
    .action(run(async (name, options) => (await operateFile()).rollback(name, options, io)));
}

function addAdmission(program: Parent, { io, run, settings }: Adding): void {
  const admission = program.command('admission').description('look at admission before it is enforced');
  admissionPreviewCommand(admission).action(
    run(async (options) => (await import('./admission-preview.ts')).admissionPreview(options, io)),
  );
  admissionScanCommand(admission).action(
    run(async (options) => (await import('./admission-scan.ts')).admissionScan(options, io)),
  );
  admissionLearnCommand(admission).action(
    run(async (options) => (await import('./admission-learn.ts')).admissionLearn(options, settings, io)),
  );
}

function addBreakGlass(program: Parent, { io, settings, run }: Adding): void {
  const glassFile = () => import('./break-glass.ts');
  const breakGlass = program
    .command('break-glass')
    .description('act outside of the gate in an emergency: open, close, list, settle');
  glass
    .breakGlassOpenCommand(breakGlass)
    .action(run(async (options) => (await glassFile()).breakGlassOpen(options, settings, io)));
  glass
    .breakGlassApproveCommand(breakGlass)
    .action(run(async (options) => (await glassFile()).breakGlassApprove(options, settings, io)));
  glass
    .breakGlassCloseCommand(breakGlass)
    .action(run(async (options) => (await glassFile()).breakGlassClose(options, settings, io)));
  glass
    .breakGlassListCommand(breakGlass)
    .action(run(async (options) => (await glassFile()).breakGlassList(options, io)));
  glass
    .breakGlassSettleCommand(breakGlass)
    .action(run(async (name, options) => (await glassFile()).breakGlassSettle(name, options, io)));
}

function addExceptions(program: Parent, { io, run }: Adding): void {
  const exceptionsFile = () => import('./exceptions.ts');
  const exception = program
    .command('exception')
    .description('work on the exceptions of a report: list, explain, assign, settle');
  exceptions
    .exceptionListCommand(exception)
    .action(run(async (options) => (await exceptionsFile()).exceptionList(options, io)));
  exceptions
    .exceptionExplainCommand(exception)
    .action(run(async (id, options) => (await exceptionsFile()).exceptionExplain(id, options, io)));
  exceptions
    .exceptionAssignCommand(exception)
    .action(run(async (id, options) => (await exceptionsFile()).exceptionAssign(id, options, io)));
  exceptions
    .exceptionSettleCommand(exception)
    .action(run(async (id, options) => (await exceptionsFile()).exceptionSettle(id, options, io)));
}

function addReports(program: Parent, { io, settings, run }: Adding): void {
  const schedulesFile = () => import('./report-schedules.ts');
  const report = reports.reportCommand(program);
  report.action(run(async (options) => (await import('./report.ts')).report(options, settings, io)));
  // A flag before the name of a subcommand would belong to `report` and be ignored.
  report.hook('preSubcommand', (command, subcommand) => {
    const given = command.options.find((o) => command.getOptionValueSource(o.attributeName()) === 'cli');
    if (given === undefined) return;
    throw new CountersignError('usage', `\`${given.long}\` is before \`${subcommand.name()}\``, {
      hint: `write \`countersign report ${subcommand.name()} … ${given.long} …\``,
    });
  });
  reports
    .reportRunCommand(report)
    .action(run(async (name, o) => (await schedulesFile()).reportRun(name, o, settings, io)));
  reports.reportListCommand(report).action(run(async (options) => (await schedulesFile()).reportList(options, io)));
  reports
    .reportSignOffCommand(report)
    .action(run(async (id, options) => (await import('./report-sign-off.ts')).reportSignOff(id, options, io)));
  reports
    .verifyCommand(program)
    .action(run(async (file, options) => (await import('./verify.ts')).verify(file, options, io)));
  checking.initCommand(program).action(run(async (options) => (await import('./init.ts')).init(options, settings, io)));
}

// Replaces the help command of the parser with one that also prints pages of the documentation.
function addHelp(program: Parent, { io, run }: Adding): void {
  program.helpCommand(false);
  helpCommand(program).action(
    run(async (words) => {
      const named = words.reduce<Parent | undefined>(
        (at, word) => at?.commands.find((c) => c.name() === word),
        program,
      );
      if (named === undefined) return (await import('./help.ts')).helpTopic(words.join(' '), io);
      named.outputHelp();
      return EXIT.yes;
    }),
  );
}
