-- Mail servers that hang up without a word, at every step; the next one is served.
for step = 1, 4 do
	conn = mt.connect(address)
	if conn == nil then error("nobody listens") end
	if step > 1 then mt.conninfo(conn, "mail.sender.example", "203.0.113.9") end
	if step > 2 then mt.mailfrom(conn, "<a@sender.example>") end
	if step > 3 then mt.rcptto(conn, "<b@example.org>"); mt.header(conn, "Subject", "half") end
	mt.disconnect(conn, false)
end
conn = mt.connect(address)
if conn == nil then error("nobody listens") end
mt.conninfo(conn, "mail.sender.example", "203.0.113.9")
mt.mailfrom(conn, "<a@sender.example>")
mt.rcptto(conn, "<b@example.org>")
mt.header(conn, "Subject", "whole")
if mt.eom(conn) ~= nil then error("end of message") end
if mt.getreply(conn) ~= SMFIR_ACCEPT then error("not accepted") end
mt.disconnect(conn)
