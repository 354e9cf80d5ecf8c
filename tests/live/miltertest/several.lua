-- Several messages in a session, one of them aborted, one without a body, and an unknown command.
conn = mt.connect(address)
if conn == nil then error("nobody listens") end
if mt.conninfo(conn, "localhost", "unspec") ~= nil then error("connect from an unknown family") end
for round = 1, 3 do
	if mt.mailfrom(conn, "<>") ~= nil then error("mail") end
	if mt.rcptto(conn, "<b@example.org>") ~= nil then error("rcpt") end
	if round == 2 then
		if mt.abort(conn) ~= nil then error("abort") end
	else
		if mt.header(conn, "Subject", "number " .. round) ~= nil then error("header") end
		if mt.eom(conn) ~= nil then error("end of message") end
		if mt.getreply(conn) ~= SMFIR_ACCEPT then error("not accepted") end
		if not mt.eom_check(conn, MT_HDRADD, "X-Spam-Score") then error("not scanned") end
	end
end
mt.disconnect(conn)
