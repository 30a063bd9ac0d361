# A user's Python program with the three-line report snippet and nothing else.
import json, os, socket
report = socket.socket(socket.AF_UNIX)
report.connect(os.environ["ATHANOR_REPORT"])
send = lambda **line: report.sendall((json.dumps(line) + "\n").encode())

for step in range(1, 6):
    send(type="metric", step=step, values={"loss": 1.0 / step})
send(type="progress", step=5, total=5)
print("python done")
