% Receives the records of `emojax watch ... --tcp=5005`. Matlab R2020b or later, no toolbox.
server = tcpclient("127.0.0.1", 5005, "Timeout", 60);
configureTerminator(server, "LF");
% writeline(server, "TOKEN xxx");       % if the session requires one
writeline(server, "GET 0");             % all records from seq 0 on
while true
    line = readline(server);
    if isempty(line) || ismissing(line), break, end
    record = jsondecode(line);          % p.fear, evidence.log_odds.fear, ...; null becomes []
    fprintf("%d %s %s\n", record.volume, record.status, record.decision);
    if ~isempty(record.feedback)
        % draw record.feedback here
    end
end
% writeline(server, "onset 3.0 fear 12"); % tells the session that a block began 3 s after volume 1
