# A program that can be stopped at any step: it saves when asked and now and then, and goes on from
# where it was saved.   saver.py STEPS LEDGER [GATE]: with GATE it does not end before that file is there.
import hashlib, json, os, select, socket, sys, time

steps, ledger, gate = int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
name, attempt = os.environ["ATHANOR_JOB_NAME"], os.environ["ATHANOR_ATTEMPT_ID"]
report = socket.socket(socket.AF_UNIX)
report.connect(os.environ["ATHANOR_REPORT"])
unread = b""


def note(*words):  # one write, so that lines of many programs do not mix
    with open(ledger, "a") as out:
        out.write(" ".join(str(w) for w in words) + "\n")


def send(**line):
    report.sendall((json.dumps(line) + "\n").encode())


def told(seconds):  # what the shepherd says within the time
    global unread
    until, lines = time.monotonic() + seconds, []
    while (left := until - time.monotonic()) > 0:
        if not select.select([report], [], [], left)[0]:
            break
        got = report.recv(4096)
        if not got:
            sys.exit("the shepherd is gone")
        *whole, unread = (unread + got).split(b"\n")
        lines += [json.loads(line).get("type") for line in whole]
        if lines:
            break
    return lines


def save(step):
    path = os.path.join(os.environ["ATHANOR_JOB_DIR"], "checkpoints", f"{attempt}-{step}")
    making = path + ".making"
    os.makedirs(making, exist_ok=True)
    text = str(step).encode()
    with open(os.path.join(making, "step"), "wb") as out:
        out.write(text)
    digest = hashlib.blake2b(text, digest_size=32).hexdigest()
    files = [{"name": "step", "size_bytes": len(text), "blake2b": digest}]
    with open(os.path.join(making, "manifest.json"), "w") as out:
        json.dump({"format": 1, "step": step, "files": files}, out)
    os.rename(making, path)
    send(type="checkpoint", step=step, path=path)


step = 0
if os.environ["ATHANOR_RESUME"]:
    with open(os.path.join(os.environ["ATHANOR_RESUME"], "step")) as saved:
        step = int(saved.read())
note("resumed", name, attempt, step)
saved = step
while step < steps or (gate and not os.path.exists(gate)):
    asked = told(0.1)
    step += 1
    send(type="metric", step=step, values={"done": step})
    if "stop" in asked or "checkpoint_now" in asked or step - saved >= 10:
        save(step)
        saved = step
    if "stop" in asked:
        sys.exit(0)
note("ran", name, attempt)
