import { parentPort } from 'node:worker_threads';
import { collectLeftovers, giveWay, messageOf } from '../model/index.ts';
import type { GitAnswer, GitTask } from './run-beside.ts';
import { runGit } from './run-git.ts';

// Runs one program per message, concurrently. All of it serves changes, which can wait while requests are answered.
giveWay();
collectLeftovers();
parentPort?.on('message', ({ id, program, args, options }: GitTask) => {
  const tell = (answer: GitAnswer) => parentPort?.postMessage(answer);
  runGit(program, args, options).then(
    (result) => tell({ id, result }),
    (thrown) => tell({ id, failed: messageOf(thrown) }),
  );
});
